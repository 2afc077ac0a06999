"""`perfkeep export` and `report --by`: what others make of what was recorded."""

from __future__ import annotations

import ast
import base64
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

import nanoarrow.ipc

from perfkeep.cli.export import FORMS
from perfkeep.cli.main import main
from perfkeep.testing.browser import Browser
from perfkeep.testing.requirements import chromium, requires
from perfkeep.testing.snapshots import MARK


def exported(file: str, tmp_path: Path, form: str) -> Path:
    out = tmp_path / f"out.{form}"
    assert main(["export", file, "--to", form, "-o", str(out)]) == 0
    return out


def test_folded_stacks_go_to_a_file_or_to_stdout(
    file: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    expected = ":1;0x2;0x1 2\n:1;0x3 1\n"
    assert exported(file, tmp_path, "folded").read_text() == expected
    assert b"written to" in capfdbinary.readouterr().out
    assert main(["export", file, "--to", "folded", "-o", "-"]) == 0
    assert capfdbinary.readouterr().out.decode() == expected


def test_speedscope_is_a_document_with_every_sample(file: str, tmp_path: Path) -> None:
    made = json.loads(exported(file, tmp_path, "speedscope").read_text())
    assert sorted(made["profiles"][0]["weights"]) == [1, 2]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_rows_are_read_back_by_duckdb(file: str, tmp_path: Path, form: str) -> None:
    import duckdb

    out = exported(file, tmp_path, form)
    with duckdb.connect(":memory:") as database:
        rows = database.sql(f"SELECT time, cpu FROM read_{form}('{out}') ORDER BY 1").fetchall()
    assert [time for time, _ in rows] == [10, 20, 30]


def test_an_arrow_stream_is_read_back_by_arrow(file: str, tmp_path: Path) -> None:
    import nanoarrow as na

    with open(exported(file, tmp_path, "arrow"), "rb") as out:
        stream = nanoarrow.ipc.InputStream.from_readable(out)
        rows = na.ArrayStream(stream).read_all().to_pylist()
    assert sorted(row["time"] for row in rows) == [10, 20, 30]
    assert {tuple(row["callchain"]) for row in rows} == {(MARK, 1, 2), (MARK, 3)}


def test_polars_has_them_as_a_frame(file: str) -> None:
    # In a process of its own: its threads leave descriptors open.
    pytest.importorskip("polars")
    code = (
        "import perfkeep, sys; data = perfkeep.read(sys.argv[1]);"
        "frame = data.to_polars('cpu_clock'); print(type(frame).__name__, sorted(frame['time']))"
    )
    got = subprocess.run(
        [sys.executable, "-c", code, file], capture_output=True, text=True, check=True
    )
    assert got.stdout == "DataFrame [10, 20, 30]\n"


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_rows_are_read_back_by_polars(file: str, tmp_path: Path, form: str) -> None:
    pytest.importorskip("polars")
    out = exported(file, tmp_path, form)
    how = "read_ipc_stream" if form == "arrow" else "read_parquet"
    # In a process of its own: its threads stay, and what they have open.
    code = (
        f"import polars; print(polars.{how}({str(out)!r}).select('time', 'callchain').to_dicts())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rows = ast.literal_eval(said.stdout)
    assert sorted((row["time"], tuple(row["callchain"])) for row in rows) == [
        (10, (MARK, 1, 2)), (20, (MARK, 1, 2)), (30, (MARK, 3)),
    ]  # fmt: skip


def test_every_form_is_made_whole_and_can_go_to_stdout(
    file: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    for form in FORMS:
        written = exported(file, tmp_path, form).read_bytes()
        capfdbinary.readouterr()
        assert main(["export", file, "--to", form, "-o", "-"]) == 0
        assert capfdbinary.readouterr().out == written, form


@pytest.fixture(scope="session")
def speedscope_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """speedscope as npm has it: a page, and what it needs beside it."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm in PATH, which fetches speedscope")
    folder = tmp_path_factory.mktemp("speedscope")
    command = ["npm", "pack", "--silent", "speedscope@1.25.0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot fetch speedscope: {done.stderr.strip()[-200:]}")
    with tarfile.open(folder / done.stdout.strip()) as packed:
        packed.extractall(folder, filter="data")
    return folder / "package/dist/release/index.html"


@requires(chromium)
def test_speedscope_s_own_page_opens_the_profile(
    file: str, tmp_path: Path, speedscope_page: Path
) -> None:
    profile = base64.b64encode(exported(file, tmp_path, "speedscope").read_bytes()).decode()
    # As speedscope's own command hands over a file.
    script = tmp_path / "profile.js"
    script.write_text(f"speedscope.loadFileFromBase64('x.json', '{profile}')")
    with Browser() as browser:
        browser.open(f"{speedscope_page.as_uri()}#localProfilePath={script}")
        browser.until("document.title.includes('cpu-clock')")
        assert browser.ask("document.querySelectorAll('canvas').length") > 0
        assert not [one for one in browser.said if "rror" in one]


def test_a_file_that_exists_can_be_left_alone(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = exported(file, tmp_path, "folded")
    out.write_text("mine")
    assert main(["export", file, "--to", "folded", "-o", str(out), "--no-clobber"]) == 1
    assert out.read_text() == "mine" and "exists" in capsys.readouterr().err


def test_report_by_function_counts_itself_and_what_it_called(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", file, "--by", "comm,sym", "-n", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "3 samples of cpu-clock",
        " SELF  TOTAL  SAMPLES  COMM  SYM",
        "66.7%  66.7%        2  :1    0x1",
        "33.3%  33.3%        1  :1    0x3",
        "and 1 more lines; -n 3 shows them",
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--by", "colour"], "is not some of comm"),
        (["--by", "sym", "-e", "nope"], "there is no table 'nope'"),
        (["-e", "cpu-clock"], "goes with --by"),
    ],
)
def test_a_report_that_makes_no_sense_is_told(
    file: str, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    try:
        code = main(["report", file, *arguments])
    except SystemExit as error:
        code = int(error.code or 0)
    assert code == 2 and says in capsys.readouterr().err
