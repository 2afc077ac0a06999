"""`perfkeep stat`: counts and times of a process, of a cgroup, and of what was switched off and on."""

from __future__ import annotations

import errno
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import perfkeep
from perfkeep.cli.main import main
from perfkeep.client.opening import cgroup_directory
from perfkeep.errors import BrokerError, UsageError
from perfkeep.kernel.cpus import online
from perfkeep.testing.requirements import perf_events, requires, root, tracefs
from support.caller import CALLS, Callers

pytestmark = [requires(perf_events, tracefs), pytest.mark.usefixtures("running")]


def test_a_process_that_stays_on_one_cpu_is_counted_once(
    caller: Callers, capsys: pytest.CaptureFixture[str]
) -> None:
    one = caller(0)
    perfkeep.start("c", [CALLS, "page-faults"], pid=one.pid, ring="64K")
    one.ask("call", 1000)
    assert main(["stat", "c"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if CALLS in line)
    assert row.split()[0] == "1,000" and "counted" not in row
    assert main(["stat", "c", "--json"]) == 0
    event = json.loads(capsys.readouterr().out)["events"][0]
    assert event["enabled"] == "per task"
    assert (event["value"], event["estimate"], event["counted"]) == (1000, 1000, 1.0)
    # Each CPU's copy is enabled while the process runs; the whole is one copy's time.
    copies = event["per_cpu"].values()
    assert event["time_enabled_ns"] == max(copy["time_enabled_ns"] for copy in copies)


def test_a_process_with_threads_and_children_is_counted_once(caller: Callers) -> None:
    one = caller()
    recording = perfkeep.start("c", [CALLS], pid=one.pid, ring="64K")
    for verb in ("call", "thread", "fork"):
        one.ask(verb, 100)
    (counts,) = recording.stat().events
    assert counts.estimate == counts.value == 300


def test_all_tasks_are_enabled_per_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    perfkeep.start("all", ["page-faults"], ring="64K")
    assert main(["stat", "all", "--json"]) == 0
    event = json.loads(capsys.readouterr().out)["events"][0]
    assert event["enabled"] == "per cpu" and event["estimate"] == event["value"]
    copies = event["per_cpu"].values()
    assert event["time_enabled_ns"] == sum(copy["time_enabled_ns"] for copy in copies)


@pytest.mark.skipif(len(online()) < 2, reason="there is one CPU")
def test_an_event_of_a_process_is_not_reopened_with_the_reason(caller: Callers) -> None:
    one = caller()
    recording = perfkeep.start("c", [CALLS], pid=one.pid, ring="64K")
    (event,) = recording.info.events
    with pytest.raises(BrokerError, match=f"follows pid {one.pid}") as caught:
        perfkeep.reopen(event.id, event.cpus[0])
    assert caught.value.errno == errno.EINVAL
    assert caught.value.hint == "perfkeep stat c"


@contextmanager
def fresh_cgroup(name: str, pid: int) -> Iterator[Path]:
    """A cgroup that no event was ever enabled for, with one process in it."""
    try:
        with cgroup_directory("/") as directory:
            top = Path(os.readlink(f"/proc/self/fd/{directory.fileno()}"))
    except (OSError, UsageError):
        pytest.skip("there is no cgroup with the perf_event controller")
    made = top / f"perfkeep-{os.getpid()}-{name}"
    made.mkdir()
    try:
        (made / "cgroup.procs").write_text(str(pid))
        yield made
    finally:
        (top / "cgroup.procs").write_text(str(pid))
        made.rmdir()


@pytest.fixture
def spinner() -> Iterator[int]:
    """A process that never leaves its CPU, as far as the machine lets it."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        os.sched_setaffinity(process.pid, {max(online())})
        os.setpriority(os.PRIO_PROCESS, process.pid, -20)
        yield process.pid
        process.kill()


@requires(root)
@pytest.mark.parametrize("sideband", [True, False])
def test_a_cgroup_counts_no_time_from_before_it_began(spinner: int, sideband: bool) -> None:
    """The kernel adds the time since the last event of a cgroup, or since boot, to the first."""
    for number in range(5):
        with fresh_cgroup(str(number), spinner) as cgroup:
            before = time.monotonic_ns()
            recording = perfkeep.start(
                "group", ["page-faults", "cpu-clock"], cgroup=str(cgroup), ring="64K",
                sideband=sideband,
            )  # fmt: skip
            for switched in ("on", "again"):
                if switched == "again":
                    recording.disable()
                    select.select([], [], [], 0.01)
                    recording.enable()
                # A switch of tasks on that CPU makes the kernel catch up.
                select.select([], [], [], 0.01)
                for counts in recording.stat().events:
                    for cpu in counts.per_cpu:
                        passed = time.monotonic_ns() - before
                        assert cpu.time_running_ns <= cpu.time_enabled_ns <= passed, switched
            recording.claim()


def test_a_tracepoint_that_counts_many_at_once_has_one_sample_of_that_weight_for_each_hit(
    caller: Callers,
) -> None:
    task = caller()
    recording = perfkeep.start("runtime", ["sched:sched_stat_runtime"], pid=task.pid, ring="1M")
    task.ask("call", 20_000)
    recording.disable()
    (counted,) = recording.stat().events
    assert not recording.throttled()
    with recording.snapshot() as snapshot:
        ((total,),) = snapshot.sql("select sum(period) from sched_stat_runtime").fetchall()
    assert total == counted.value > 10**6
