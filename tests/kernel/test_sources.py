"""Every verb that reads data takes a file, the name of a recording, or standard input."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import perfkeep
from perfkeep.client.sources import uneven
from perfkeep.formats.perf_data.coverage import CpuCoverage
from perfkeep.testing.requirements import perf_events, perf_tool, requires
from support.commands import PERFKEEP, Cli, Ran

pytestmark = requires(perf_events)

S = 10**9

#: The words before the source and those behind it, by verb.
READERS: dict[str, tuple[list[str], list[str]]] = {
    "report": (["report"], []),
    "report --by": (["report", "--by", "comm"], []),
    "report --tree": (["report", "--tree"], []),
    "script": (["script", "-n", "3"], []),
    "sql": (["sql"], ['SELECT count(*) AS n FROM "cpu_clock"']),
    "export": (["export", "--to", "folded", "-o", "-"], []),
    "diff": (["diff", "--times", "0s..", "--times", "0s.."], []),
}


@pytest.fixture
def flight(instance: Path) -> Iterator[perfkeep.Recording]:
    """A paused recording, so that all that is read of it is the same."""
    recording = perfkeep.start("flight", ["cpu-clock/freq=4000/"], cpus=[0], ring="64K")
    try:
        spin()
        recording.disable()
        yield recording
    finally:
        recording.claim()


def spin() -> None:
    """Take up CPU 0 for a few samples."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [0])
    try:
        sum(range(2_000_000))
    finally:
        os.sched_setaffinity(0, before)


def run(verb: str, source: str, cwd: Path, stdin: bytes = b"") -> Ran:
    before, behind = READERS[verb]
    done = subprocess.run(
        [*PERFKEEP, *before, source, *behind],
        input=stdin, capture_output=True, cwd=cwd, timeout=120, check=False,
    )  # fmt: skip
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize("verb", READERS)
def test_a_file_a_recording_and_standard_input_give_the_same_answer(
    flight: perfkeep.Recording, verb: str, tmp_path: Path
) -> None:
    flight.snapshot(str(tmp_path / "x.data")).close()
    data = (tmp_path / "x.data").read_bytes()
    of_file = run(verb, "x.data", tmp_path)
    assert (of_file.code, of_file.err) == (0, "")
    assert of_file.out
    for source, stdin in (("flight", b""), ("-", data), ("./x.data", b"")):
        other = run(verb, source, tmp_path, stdin)
        assert (other.code, other.out, other.err) == (0, of_file.out, ""), source


@pytest.mark.parametrize("verb", READERS)
@requires(perf_tool)
def test_what_perf_record_writes_to_a_pipe_is_read_from_it(verb: str, tmp_path: Path) -> None:
    command = [
        "perf",
        "record",
        "-q",
        "-e",
        "cpu-clock",
        "-o",
        "-",
        "python3",
        "-c",
        "sum(range(10**6))",
    ]
    recorded = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout
    done = run(verb, "-", tmp_path, recorded)
    assert (done.code, done.err) == (0, "")
    assert done.out


@pytest.mark.parametrize("verb", READERS)
def test_a_slash_makes_it_a_file_and_a_file_goes_before_a_recording(
    flight: perfkeep.Recording, verb: str, tmp_path: Path
) -> None:
    missing = run(verb, "./flight", tmp_path)
    assert missing.code == 1
    assert "./flight: No such file or directory" in missing.err
    (tmp_path / "flight").write_bytes(b"no perf.data")
    shadowed = run(verb, "flight", tmp_path)
    assert shadowed.code == 1
    assert "no perf.data file" in shadowed.err
    hint = "hint: the recording flight is read from a folder that has no file of this name\n"
    assert shadowed.err.endswith(hint)
    (tmp_path / "other").write_bytes(b"no perf.data")
    assert "hint: " not in run(verb, "other", tmp_path).err


@pytest.mark.parametrize("verb", READERS)
def test_neither_a_file_nor_a_recording_is_said_in_one_sentence(
    instance: Path, verb: str, tmp_path: Path
) -> None:
    done = run(verb, "nothing", tmp_path)
    assert done.code == 1
    assert done.err.splitlines()[0] == (
        "perfkeep: there is neither a file nor a recording called 'nothing'"
    )
    assert done.err.splitlines()[1].startswith("hint: ")


def test_standard_input_cannot_be_both_sides_of_a_diff(cli: Cli) -> None:
    assert "standard input can be read once" in cli("diff", "-", "-").err


def test_a_terminal_is_no_perf_data(tmp_path: Path) -> None:
    terminal, side = os.openpty()
    try:
        done = subprocess.run(
            [*PERFKEEP, "report", "-"],
            stdin=side,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(terminal)
        os.close(side)
    assert done.returncode == 2
    assert "standard input is a terminal" in done.stderr


@requires(perf_tool)
def test_convert_reads_standard_input(tmp_path: Path) -> None:
    path = tmp_path / "x.data"
    subprocess.run(
        ["perf", "record", "-q", "-e", "cpu-clock", "-o", path, "true"], check=True, timeout=60
    )
    done = subprocess.run(
        [*PERFKEEP, "convert", "-", "-o", tmp_path / "out"],
        input=path.read_bytes(), capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert b"has no persistent event" in done.stderr


def test_rings_that_reach_back_to_different_times_are_reported() -> None:
    full = CpuCoverage(cpu=0, first_ns=90 * S, last_ns=100 * S, wrapped=True)
    whole = CpuCoverage(cpu=1, first_ns=10 * S, last_ns=100 * S)
    (sentence,) = uneven([full, whole, CpuCoverage(cpu=2)])
    assert sentence.startswith("the ring of CPU 0 holds the last 10s, that of CPU 1 1.5m: ")
    assert uneven([whole, CpuCoverage(cpu=0, first_ns=90 * S, last_ns=100 * S)]) == []
    assert uneven([CpuCoverage(cpu=2)]) == []


def test_events_of_one_name_are_told_apart(instance: Path, tmp_path: Path) -> None:
    perfkeep.start("two", ["cpu-clock/freq=999/", "cpu-clock/freq=1999/"], cpus=[0], ring="64K")
    spin()
    header = run("report", "two", tmp_path).out.splitlines()[0]
    assert header.split()[-2:] == ["cpu-clock/freq=999/", "cpu-clock/freq=1999/"]


def test_one_event_needs_no_list(instance: Path) -> None:
    recording = perfkeep.start("one", "cpu-clock", cpus=[0], ring="64K")
    recording.add("page-faults")
    recording.remove("cpu-clock")
    assert [event.event for event in recording.info.events] == ["page-faults"]


def test_a_choice_without_samples_is_reported(flight: perfkeep.Recording, cli: Cli) -> None:
    assert cli("script", "flight", "-C", "9999").err == (
        "perfkeep: no sample is among those chosen by the options\n"
    )


def test_a_full_device_is_named(flight: perfkeep.Recording, cli: Cli) -> None:
    assert cli("snapshot", "flight", "-o", "/dev/full").err == (
        "perfkeep: /dev/full: No space left on device\n"
    )
