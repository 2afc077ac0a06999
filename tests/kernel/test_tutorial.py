"""docs/tutorial leads to the answer: each of its commands is run, in its order, on its workload."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.waiting import Eventually

pytest.importorskip("duckdb")

from perfkeep.testing.requirements import perf_events, requires, root, tracefs

pytestmark = [
    requires(perf_events, tracefs, root),
    pytest.mark.usefixtures("running", "tracefs_mounted"),
]

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial"


def commands() -> list[str]:
    """What is typed as root; the service itself is started by hand."""
    text = (TUTORIAL / "README.md").read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("# ")]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Path]:
    """It runs; its log."""
    log = tmp_path / "log"
    with (
        open(log, "wb") as out,
        # On one CPU that has never been offline: of others Linux 6.18 does not tell when they
        # leave their idle task, and then no wait ends there.
        subprocess.Popen(
            ["taskset", "-c", "0", sys.executable, TUTORIAL / "service.py"], stdout=out
        ) as process,
    ):
        yield log
        process.terminate()


@pytest.fixture
def typed(tmp_path: Path) -> Callable[[str], str]:
    """Types a command in an empty folder."""
    bin = Path(sys.executable).parent

    def type_it(command: str) -> str:
        environment = {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}"}
        got = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command.replace("| head", "| cat | head")],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        # A snapshot may miss what was before the recording began, and say so.
        assert got.returncode in (0, 3, 141), (command, got.stderr)
        return got.stdout

    return type_it


def columns(text: str) -> dict[str, list[str]]:
    """The rows of a table by their first column."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return {row[0]: row for row in rows}


def test_the_tutorial_finds_why_the_service_stalls(
    service: Path, typed: Callable[[str], str], eventually: Eventually, tmp_path: Path
) -> None:
    start, snapshot, waits, wakers, busy, *further = commands()
    assert "stall (id 1) records" in typed(start)
    # Three of them, so that three seconds hold more than one.
    eventually(lambda: service.read_text().count("slow request") > 4)

    def longest_ms() -> int:
        typed(snapshot)
        slept = re.findall(r"^worker +sleeping +\d+ +(\d+)$", typed(waits), re.MULTILINE)
        return int(slept[0]) if slept else 0

    # What the tutorial looks for. Where workers have to wait for a CPU as well, not every stall
    # has them sleep for so long.
    eventually(lambda: longest_ms() > 50)
    assert "janitor" in columns(typed(wakers))
    assert re.search(r"janitor +crc32_z", typed(busy).splitlines()[0])
    shown = [typed(command) for command in further]
    assert shown[0].count("sched_waking") == 2 and "janitor" in shown[0]
    assert (tmp_path / "stall.html").read_text().startswith("<!DOCTYPE html>")
    assert (tmp_path / "stall.pftrace").stat().st_size > 10_000
    assert shown[-1] == "stall has ended\n"
    draw = f"{sys.executable} {TUTORIAL / 'pictures.py'} stall.data ."
    typed(draw)
    for name in ("timeline.svg", "flames.svg"):
        drawn, shipped = (tmp_path / name).read_text(), (TUTORIAL / name).read_text()
        for text in ("janitor", "crc32_z" if name == "flames.svg" else "worker"):
            assert text in drawn and text in shipped
