"""`perfkeep export --to perf.data`: stock perf says of it what it says of its source."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import perfkeep
from perfkeep.cli.main import main
from perfkeep.testing.requirements import perf_events, perf_tool, requires, tracefs
from support.instance import Running

pytestmark = requires(perf_events, tracefs, perf_tool)

# perf chooses other columns for a pipe.
QUESTIONS = (
    ("script", "-F", "comm,pid,tid,cpu,time,event,ip,sym,period"),
    ("report", "--stdio", "--no-children", "-g", "none"),
)


def perf_says(path: Path, question: tuple[str, ...]) -> list[str]:
    command = ["perf", *question, "-i", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # One of many, by chance.
    return [line for line in done.stdout.splitlines() if not line.startswith("# (Tip: ")]


def exported(source: str, tmp_path: Path) -> Path:
    out = tmp_path / "out.data"
    assert main(["export", source, "--to", "perf.data", "-o", str(out)]) == 0
    return out


@pytest.mark.parametrize("options", [[], ["-z"], ["-o", "-"], ["-z", "-o", "-"]], ids=" ".join)
def test_perf_says_the_same_of_a_plain_file_as_of_what_it_wrote(
    tracefs_mounted: Path, tmp_path: Path, options: list[str]
) -> None:
    path = tmp_path / "perf.data"
    command = ["perf", "record", "-q", "-B", "-a", "-g"]
    command += ["-e", "sched:sched_switch", "-e", "cpu-clock", *options]
    if "-" in options:
        with open(path, "wb") as file:
            done = subprocess.run([*command, "--", "sleep", "0.5"], stdout=file)
    else:
        work = ["-o", str(path), "--", "ls", "-lR", "/etc"]
        done = subprocess.run([*command, *work], stdout=subprocess.DEVNULL)
    if done.returncode and "-z" in options:
        pytest.skip("this perf was built without zstd")
    plain = exported(str(path), tmp_path)
    for question in QUESTIONS:
        theirs = perf_says(path, question)
        assert len(theirs) > 20
        assert perf_says(plain, question) == theirs


def test_a_live_recording_becomes_a_file_that_perf_reads(
    running: Running, tracefs_mounted: Path, tmp_path: Path
) -> None:
    with_chains = perfkeep.start(
        "live", ["sched:sched_switch", "cpu-clock/freq=999/"], ring="1M", call_chains=True
    )
    subprocess.run(["ls", "-lR", "/etc"], stdout=subprocess.DEVNULL, check=True)
    # What it holds does not change any more.
    with_chains.disable()
    snapshot = tmp_path / "snapshot.data"
    with_chains.snapshot(str(snapshot)).close()
    plain = exported("live", tmp_path)
    with_chains.claim()
    for question in (("script",), QUESTIONS[1]):
        theirs = perf_says(snapshot, question)
        assert len(theirs) > 20
        assert perf_says(plain, question) == theirs
