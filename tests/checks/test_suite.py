"""The suite's own conftest.py: what a test leaves behind is named, and what may not run side by
side does not.

Samples run in a pytest of their own, under a copy of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

TESTS = Path(__file__).parents[1]

SAMPLES = """
import os
import socket
import subprocess

from perfkeep.client.connection import Connection
from perfkeep.wire.instance import current

kept = []

def test_a_fd():
    kept.append(os.open("/dev/null", 0))

def test_a_socket():
    kept.append(socket.socket(socket.AF_UNIX))

def test_a_child():
    kept.append(subprocess.Popen(["sleep", "1000"]))

def test_a_detached_process():
    subprocess.run("setsid sleep 1000 >/dev/null 2>&1 &", shell=True)

def test_an_instance():
    Connection(current()).close()

def test_nothing():
    os.close(os.open("/dev/null", 0))

def test_an_instance_asked_for(instance):
    Connection(current()).close()
    assert instance.exists()
"""

LEFT = {
    "test_a_fd": "1 × /dev/null is open",
    "test_a_socket": "1 × socket:[",
    # In the middle of execve(2) a process has no arguments for a moment.
    "test_a_child": " was not waited for",
    "test_a_detached_process": "(sleep 1000) goes on",
    "test_an_instance": "broker/__main__.py",
}


def report_on(folder: Path, files: dict[str, str], *options: str) -> list[ElementTree.Element]:
    """Run the files' tests; gives a <testcase> for each result."""
    shutil.copy(TESTS / "conftest.py", folder)
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--junitxml=report.xml"]
    # Under xdist itself, a worker's environment would make the inner pytest one.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env["PYTHONPATH"] = str(TESTS)  # as pyproject.toml has it; the folder has no such file
    done = subprocess.run(
        [*command, *options, "."],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (folder / "report.xml").exists(), done.stdout + done.stderr
    return list(ElementTree.parse(folder / "report.xml").iter("testcase"))


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the report says against each sample: "" when it has nothing to say."""
    folder = tmp_path_factory.mktemp("leaks")
    cases: dict[str, str] = {}
    # A test that passed and left something behind is reported twice.
    for case in report_on(folder, {"test_samples.py": SAMPLES}):
        words = "".join(wrong.text or "" for wrong in case)
        cases[case.attrib["name"]] = cases.get(case.attrib["name"], "") + words
    return cases


@pytest.mark.parametrize("sample", LEFT)
def test_a_test_that_leaves_something_behind_is_told_what(
    sample: str, said: dict[str, str]
) -> None:
    assert "left behind:" in said[sample]
    assert LEFT[sample] in said[sample]


def test_a_test_that_leaves_nothing_behind_passes(said: dict[str, str]) -> None:
    assert said["test_nothing"] == ""


def test_the_instance_that_a_test_asked_for_ends_with_it(said: dict[str, str]) -> None:
    assert said["test_an_instance_asked_for"] == ""


WHERE = """
import os
import pytest

@pytest.mark.parametrize("n", range(5))
def test_where(n, record_property):
    record_property("process", os.getpid())
"""


def test_tests_with_real_events_share_one_process(tmp_path: Path) -> None:
    rooms = ("kernel", "programs", "unit")
    files = {f"{room}/test_{room}_{n}.py": WHERE for room in rooms for n in range(2)}
    report = report_on(tmp_path, files, "--import-mode=importlib", "-n", "2")
    processes: dict[str, set[str]] = {room: set() for room in rooms}
    for case in report:
        (process,) = case.iter("property")
        processes[case.attrib["classname"].split(".")[0]].add(process.attrib["value"])
    assert len(report) == 30
    assert len(processes["kernel"]) == 1 and processes["kernel"] == processes["programs"]
    assert processes["unit"] - processes["kernel"], "the other process has nothing to do"
