"""`perfkeep sql`: a question, and its answer in the form that was asked for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from perfkeep.cli.main import main
from perfkeep.extras import install_command
from perfkeep.testing.assembler import Assembler
from perfkeep.testing.snapshots import snapshot_of


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Three samples of cpu-clock, of two threads."""
    event = Assembler()
    threads = {10: 1, 20: 2, 30: 2}
    samples = [event.sample(at, tid=tid) for at, tid in threads.items()]
    return snapshot_of(tmp_path / "x.data", event, samples)


def test_a_wrong_query_is_refused_in_the_words_of_the_database(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sql", file, "SELECT * FROM nothing"]) == 2
    assert "\nperfkeep: Table with name nothing does not exist!" in capsys.readouterr().err


QUERY = "SELECT tid, count(*) AS n FROM cpu_clock GROUP BY 1 ORDER BY 1"


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ((), "tid  n\n  1  1\n  2  2\n"),
        (("--csv",), "tid,n\n1,1\n2,2\n"),
    ],
)
def test_the_answer_comes_as_it_was_asked_for(
    file: str, capsys: pytest.CaptureFixture[str], option: tuple[str, ...], expected: str
) -> None:
    assert main(["sql", file, QUERY, *option]) == 0
    assert capsys.readouterr().out == expected


def test_json_is_a_list_of_objects(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", file, QUERY, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"tid": 1, "n": 1}, {"tid": 2, "n": 2}]


def test_tables_shows_what_can_be_asked(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", file, "--tables"]) == 0
    assert "cpu_clock  time" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["SELECT nope"], "nope"), ([], "--tables"), (["SELEC 1"], "syntax error")],
)
def test_a_question_that_makes_no_sense_is_told_in_a_sentence(
    file: str, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main(["sql", file, *arguments]) == 2
    assert says in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    for name in [name for name in sys.modules if name.startswith("perfkeep.analysis")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["sql", file, "SELECT 1"]) == 1
    assert f"\nhint: {install_command('analysis')}\n" in capsys.readouterr().err


def test_rows_become_a_parquet_file_whole_or_not_at_all(file: str, tmp_path: Path) -> None:
    import duckdb

    path = tmp_path / "rows.parquet"
    assert main(["sql", file, QUERY, "--parquet", str(path)]) == 0
    with duckdb.connect(":memory:") as database:
        assert database.sql(f"FROM '{path}'").fetchall() == [(1, 1), (2, 2)]
    for query in ("SELECT nope", "SET threads = 1"):
        assert main(["sql", file, query, "--parquet", str(tmp_path / "none")]) == 2
    assert {one.name for one in tmp_path.iterdir()} == {"x.data", "rows.parquet"}
