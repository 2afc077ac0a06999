"""perfkeep.extras: the command that adds an extra fits the way perfkeep was installed."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import perfkeep
from perfkeep import extras
from perfkeep.errors import PerfkeepError, UsageError
from perfkeep.testing.assembler import Assembler
from perfkeep.testing.snapshots import snapshot_of

PIP = [sys.executable, "-m", "pip", "install"]
COMMIT = "f" * 40


def directory(path: str, editable: bool) -> dict[str, object]:
    return {"url": f"file://{path}", "dir_info": {"editable": True} if editable else {}}


@pytest.mark.parametrize(
    ("direct", "words"),
    [
        (directory("/src/perf%20keep", True), ["--editable", "/src/perf keep[analysis]"]),
        (directory("/src/perfkeep", False), ["/src/perfkeep[analysis]"]),
        (
            {"url": "https://x/perfkeep.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}},
            [f"perfkeep[analysis] @ git+https://x/perfkeep.git@{COMMIT}"],
        ),
        (
            {"url": "file:///w/perfkeep-1.whl", "archive_info": {}},
            ["perfkeep[analysis] @ file:///w/perfkeep-1.whl"],
        ),
    ],
)
@pytest.mark.parametrize(
    ("receipt", "installer", "program"),
    [
        ("", "pip\n", PIP),
        ("", "uv", ["uv", "pip", "install", "--python", sys.executable]),
        ("uv-receipt.toml", "uv", ["uv", "tool", "install"]),
        ("pipx_metadata.json", "pip\n", ["pipx", "install", "--force"]),
    ],
)
def test_the_command_names_the_installer_and_the_source(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    direct: dict[str, object],
    words: list[str],
    receipt: str,
    installer: str,
    program: list[str],
) -> None:
    files = {"direct_url.json": json.dumps(direct), "INSTALLER": installer}
    monkeypatch.setattr(extras, "_metadata", files.__getitem__)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(extras, "_has_pip", lambda: True)
    if receipt:
        (tmp_path / receipt).write_text("")
    assert shlex.split(extras.install_command("analysis")) == [*program, *words]


def test_the_source_tree_itself_is_installed_where_nothing_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extras, "_metadata", lambda name: "")
    root = str(Path(perfkeep.__file__).parents[2])
    assert shlex.split(extras.install_command("lines"))[-2:] == ["--editable", f"{root}[lines]"]


#: A source tree whose build needs nothing from an index.
_PROJECT = """[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
_BACKEND = """
import os

def prepare_metadata_for_build_editable(directory, settings=None):
    os.mkdir(f"{directory}/perfkeep-1.dist-info")
    with open(f"{directory}/perfkeep-1.dist-info/METADATA", "w") as file:
        file.write("Metadata-Version: 2.1\\nName: perfkeep\\nVersion: 1\\nProvides-Extra: analysis\\n")
    return "perfkeep-1.dist-info"

def build_editable(*_, **__):
    raise NotImplementedError

prepare_metadata_for_build_wheel, build_wheel = prepare_metadata_for_build_editable, build_editable
"""


@pytest.mark.parametrize("editable", [True, False])
def test_the_command_runs_in_this_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, editable: bool
) -> None:
    source = tmp_path / "a source"
    source.mkdir()
    (source / "pyproject.toml").write_text(_PROJECT)
    (source / "backend.py").write_text(_BACKEND)
    monkeypatch.setattr(extras, "_source", lambda: (str(source), editable))
    words = shlex.split(extras.install_command("analysis"))
    if "pip" not in words and words[1:3] != ["-m", "pip"]:
        pytest.skip(f"{words[0]} has no dry run")
    last = words.index("install") + 1
    offline = "--offline" if words[0] == "uv" else "--no-index"
    command = [*words[:last], "--dry-run", offline, *words[last:]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, (command, done.stderr)


@pytest.mark.parametrize(
    ("receipt", "words"),
    [
        ("", [*PIP, "pandas"]),
        ("uv-receipt.toml", ["uv", "pip", "install", "--python", sys.executable, "pandas"]),
        ("pipx_metadata.json", ["pipx", "inject", "perfkeep", "pandas"]),
    ],
)
def test_a_package_is_added_by_the_installer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, receipt: str, words: list[str]
) -> None:
    monkeypatch.setattr(extras, "_metadata", lambda name: "")
    monkeypatch.setattr(extras, "_has_pip", lambda: True)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    if receipt:
        (tmp_path / receipt).write_text("")
    assert shlex.split(extras.package_command("pandas")) == words


@pytest.mark.parametrize("module", extras.FRAMES)
def test_data_frames_name_the_package_that_is_missing(module: str, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "import perfkeep\n"
        "try:\n"
        f"    perfkeep.read(sys.argv[1]).to_{module}('cpu_clock')\n"
        "except perfkeep.PerfkeepError as error:\n"
        "    print(error, error.hint, sep='\\n')\n"
    )
    event = Assembler()
    path = snapshot_of(tmp_path / "x.data", event, [event.sample(10)])
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    error, hint = done.stdout.splitlines()
    assert f"needs {module}" in error, done.stderr
    assert hint == extras.package_command(module)


def test_a_module_of_no_extra_stays_an_error_of_python() -> None:
    with pytest.raises(ModuleNotFoundError), extras.needed():
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401


@pytest.mark.parametrize("module", ["numpy", "duckdb", "nanoarrow"])
def test_the_library_names_the_extra_that_is_missing(module: str, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "import perfkeep\n"
        "try:\n"
        "    data = perfkeep.read(sys.argv[1])\n"
        "    data.to_arrow(), data.sql('select 1')\n"
        "except perfkeep.PerfkeepError as error:\n"
        "    print(error, error.hint, sep='\\n')\n"
    )
    path = snapshot_of(tmp_path / "x.data", Assembler(), [])
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    error, hint = done.stdout.splitlines()
    assert module in error and "'analysis'" in error, done.stderr
    assert hint == extras.install_command("analysis")


def test_a_query_that_duckdb_refuses_is_an_error_of_perfkeep(tmp_path: Path) -> None:
    path = snapshot_of(tmp_path / "x.data", Assembler(), [])
    for query in ("SELECT nope", "not sql", "SELECT * FROM nothing"):
        with pytest.raises(PerfkeepError):
            perfkeep.read(path).sql(query)


def test_a_query_that_fails_at_a_row_is_an_error_of_perfkeep(tmp_path: Path) -> None:
    event = Assembler()
    path = snapshot_of(tmp_path / "x.data", event, [event.sample(10), event.sample(20)])
    data = perfkeep.read(path)
    with pytest.raises(UsageError, match=r"(?i)convert"):
        data.sql("SELECT CAST(tid || 'x' AS INTEGER) FROM cpu_clock")
    with pytest.raises(PerfkeepError, match="off_cpu: "):
        data.sql("SELECT count(*) FROM off_cpu")
    rows = data.sql("SELECT time FROM cpu_clock ORDER BY 1")
    assert rows.fetchall() == [(10,), (20,)] and rows.columns == ["time"]
