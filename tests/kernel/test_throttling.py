"""A sample rate that the kernel lowered is reported per event and CPU, wherever a recording is read."""

from __future__ import annotations

from pathlib import Path

import pytest

import perfkeep
from perfkeep.testing.requirements import perf_events, requires, tracefs
from support.caller import CALLS, Callers
from support.commands import Cli
from support.waiting import Eventually

pytestmark = [requires(perf_events, tracefs), pytest.mark.usefixtures("running")]

#: It counts nanoseconds, at each tick and switch those since the last: more samples in one call than
#: the kernel allows for a tick (kernel.perf_event_max_sample_rate), so a busy task has it throttled.
OFTEN = "sched:sched_stat_runtime/period=1000/"


@pytest.fixture
def throttled(caller: Callers, eventually: Eventually) -> perfkeep.Recording:
    """A recording of a task that sleeps now, and of which an event was throttled."""
    task = caller()
    recording = perfkeep.start("t", [CALLS, OFTEN], pid=task.pid, ring="256K")

    def happened() -> bool:
        task.ask("call", 5000)
        return bool(recording.throttled())

    eventually(happened)
    return recording


def test_a_snapshot_covers_how_often_each_event_was_throttled_on_each_cpu(
    throttled: perfkeep.Recording, tmp_path: Path, cli: Cli
) -> None:
    path = tmp_path / "t.data"
    ran = cli("snapshot", "t", "-o", path)
    with throttled.snapshot() as snapshot:
        coverage = snapshot.coverage
    assert coverage.throttled == perfkeep.read(str(path)).throttled
    assert {name for name, _ in coverage.throttled} == {"sched:sched_stat_runtime"}
    assert ran.code == 0 and "the kernel throttled sched:sched_stat_runtime, so" in ran.err
    rows = [line.split() for line in ran.out.splitlines()[1:-1]]
    assert {int(row[0]): int(row[-2]) for row in rows if row[-2] != "0"} == {
        cpu: count for (_, cpu), count in coverage.throttled.items()
    }


def test_stat_reads_from_the_rings_how_often_each_event_was_throttled(
    throttled: perfkeep.Recording, cli: Cli
) -> None:
    calls, often = throttled.info.events
    times = throttled.throttled()
    assert {id for id, _ in times} == {often.id}
    first, second = cli("stat", "t", "--throttled", "--json").json["events"]
    assert (first["id"], first["throttled"]) == (calls.id, 0)
    assert (second["id"], second["throttled"]) == (often.id, sum(times.values()))
    for cpu, numbers in second["per_cpu"].items():
        assert numbers["throttled"] == times.get((often.id, int(cpu)), 0)
    header, *rows = cli("stat", "t", "--throttled").out.splitlines()
    assert header.split()[-1] == "THROTTLED"
    assert [row.split()[-1] for row in rows] == ["0", f"{sum(times.values()):,}"]


def test_stat_alone_reads_no_rings(throttled: perfkeep.Recording, cli: Cli) -> None:
    assert "THROTTLED" not in cli("stat", "t").out
    assert all("throttled" not in event for event in cli("stat", "t", "--json").json["events"])


def test_tail_says_which_event_was_throttled(throttled: perfkeep.Recording, cli: Cli) -> None:
    assert "the kernel throttled sched:sched_stat_runtime" in cli("tail", "t", "--for", "10ms").err
