"""Adopt the everyday forms of `perf record`; the snapshots are readable and honest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import perfkeep
from perfkeep.abi.perf_event import Attr, ClockId, Flag
from perfkeep.client.adopt import adopt
from perfkeep.client.clocks import ahead_ns
from perfkeep.client.look import look
from perfkeep.client.reopening import open_again
from perfkeep.errors import BrokerError
from perfkeep.testing.requirements import perf_events, perf_tool, requires, root
from perfkeep.wire import messages
from support.caller import CALLS, Callers
from support.commands import Cli
from support.waiting import Eventually

pytestmark = [requires(perf_events, perf_tool, root), pytest.mark.usefixtures("running")]


@contextmanager
def perf_record(file: Path, *options: str) -> Iterator[int]:
    """A perf record that has taken samples; killed behind the block, so that its events stay on."""
    command = ["perf", "record", *options, "-o", str(file)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def adopted(pid: int, eventually: Eventually) -> perfkeep.Recording:
    """The recording of a perf record that has begun and has samples."""
    found: list[perfkeep.Recording] = []

    def begun() -> bool:
        try:
            found.append(adopt(pid, "taken"))
        except perfkeep.PerfkeepError:
            return False
        return True

    def has_samples() -> bool:
        with found[0].snapshot() as snapshot:
            return sum(cpu.records for cpu in snapshot.coverage.cpus) > 200

    eventually(begun)
    eventually(has_samples)
    return found[0]


EVERYDAY = {
    "frequency": ["-a", "-F", "99"],
    "call chains": ["-a", "-g", "-F", "99"],
    "period": ["-a", "-c", "1000000"],
    "defaults": ["-a"],
    "one CPU": ["-C", "0", "-F", "999"],
    "overwriting": ["-a", "-F", "99", "--overwrite"],
    "CLOCK_MONOTONIC_RAW": ["-a", "-F", "99", "-k", "CLOCK_MONOTONIC_RAW"],
    "two events": ["-a", "-F", "99", "-e", "cpu-clock", "-e", "page-faults"],
    "a tracepoint": ["-a", "-e", "sched:sched_switch"],
    "stacks": ["-a", "-F", "99", "--call-graph", "dwarf,512"],
}


@pytest.mark.parametrize("options", EVERYDAY.values(), ids=EVERYDAY.keys())
def test_its_snapshot_is_read_by_stock_perf_and_by_perfkeep(
    options: list[str], tmp_path: Path, eventually: Eventually
) -> None:
    path = tmp_path / "copy.data"
    with perf_record(tmp_path / "perf.data", *options) as pid:
        recording = adopted(pid, eventually)
        recording.snapshot(str(path)).close()
    script = subprocess.run(
        ["perf", "script", "-f", "-F", "tid,cpu,time,event", "-G", "-i", str(path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    data = look(str(path))
    complaint = "" if data.lost else script.stderr
    assert complaint == ""
    assert not data.unknown and not data.malformed
    assert sum(map(len, data.tables.values())) == len(script.stdout.splitlines()) > 0


@pytest.mark.parametrize("clock", ["", "CLOCK_MONOTONIC", "CLOCK_BOOTTIME"])
def test_the_last_seconds_are_those_of_its_own_clock(
    clock: str, tmp_path: Path, eventually: Eventually
) -> None:
    options = ["-C", "0", "-F", "999", *(["-k", clock] if clock else [])]
    with perf_record(tmp_path / "perf.data", *options) as pid:
        recording = adopted(pid, eventually)
        with recording.snapshot() as whole, recording.snapshot(last="1h") as hour:
            (everything,), (last,) = whole.coverage.cpus, hour.coverage.cpus
        assert last.records >= everything.records > 200
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        with recording.snapshot(until_ns=before) as early, early:
            assert early.ahead_ns is not None and early.coverage.last_ns is not None
            assert early.coverage.last_ns <= before + early.ahead_ns
        with recording.snapshot(since_ns=before + 3_600 * 10**9) as none:
            assert none.coverage.cpus[0].records == 0


def test_a_ring_that_is_full_says_what_it_lacks(
    tmp_path: Path, eventually: Eventually, cli: Cli
) -> None:
    with perf_record(tmp_path / "perf.data", "-C", "0", "-F", "5000", "-m", "8") as pid:
        recording = adopted(pid, eventually)
        os.kill(pid, signal.SIGSTOP)  # as good as dead: it reads no more

        def lost() -> int:
            return sum(one.lost for event in recording.stat().events for one in event.per_cpu)

        def stopped() -> bool:
            with recording.snapshot() as snapshot:
                return snapshot.coverage.cpus[0].stopped

        eventually(stopped)
    tailed = cli("tail", "taken", "--for", "2s", "--every", "100ms")
    (line,) = [line for line in tailed.err.splitlines() if "do not overwrite and are full" in line]
    assert "the rings of taken" in line and "samples, and none will come" in line
    for span in ([], ["--last", "1h"], ["--last", "1us"]):
        before = lost()
        done = cli("snapshot", "taken", "-o", tmp_path / "copy.data", *span)
        assert done.code == 3 and "do not overwrite and are full" in done.err
        header, values, *_ = done.out.splitlines()
        # Without a record FROM and TO are empty, so the columns are counted from the end.
        row = dict(zip(reversed(header.split()), reversed(values.split()), strict=False))
        assert row["REACHED"] == "no"
        assert 0 < int(row["LOST"].replace(",", "")) <= lost()
        assert before <= lost()


@pytest.mark.parametrize("clock", [None, *ClockId])
def test_the_clock_of_an_event_is_compared_with_that_of_spans(clock: ClockId | None) -> None:
    attr = Attr() if clock is None else Attr(flags=Flag.USE_CLOCKID, clockid=clock)
    first, second = ahead_ns(attr), ahead_ns(attr)
    assert first is not None and second is not None
    # Within what an interruption between two readings may cost.
    assert abs(first - second) < 10**9
    if clock is not None:
        now = time.clock_gettime_ns(clock) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        assert abs(first - now) < 10**9


def test_a_perf_record_whose_events_cannot_persist_is_refused_with_the_way_that_works(
    tmp_path: Path, eventually: Eventually
) -> None:
    with subprocess.Popen(["sleep", "1000"]) as task:
        try:
            options = ["--per-thread", "-e", "task-clock", "-p", str(task.pid)]
            with perf_record(tmp_path / "perf.data", *options) as pid:
                hints: list[str] = []

                def refused() -> bool:
                    try:
                        adopt(pid, "taken")
                    except perfkeep.PerfkeepError as error:
                        hints.append(error.hint)
                    return any(hints)

                eventually(refused)
                assert "without --per-thread" in hints[-1]
            with perf_record(tmp_path / "perf.data", *options[1:]) as pid:
                eventually(lambda: adopts(pid))
        finally:
            task.kill()


#: Forms of perf record of a process, whose events follow it over the CPUs.
OF_A_PROCESS = {
    "-p": [],
    "without inheritance": ["-i"],
    "with times": ["-s"],
    "several events": ["-e", "task-clock", "-e", "sched:sched_switch"],
}


@pytest.mark.parametrize("options", OF_A_PROCESS.values(), ids=OF_A_PROCESS.keys())
def test_a_process_is_counted_once(
    options: list[str], caller: Callers, tmp_path: Path, eventually: Eventually, cli: Cli
) -> None:
    task = caller(0)
    with perf_record(tmp_path / "perf.data", "-e", CALLS, *options, "-p", str(task.pid)) as pid:
        eventually(lambda: adopts(pid))
        recording = perfkeep.Recording("taken")

        def counts_calls() -> bool:  # perf record enables its events some time after it opened them
            task.ask("call", 1)
            return recording.stat().events[0].value > 0

        eventually(counts_calls)
        before = recording.stat().events[0].value
        task.ask("call", 1000)
        counts = recording.stat().events[0]
        assert counts.value - before == 1000 and counts.estimate == counts.value
        document = json.loads(cli("stat", "taken", "--json").out)["events"][0]
        assert document["enabled"] == "per task" and document["estimate"] == counts.value
        assert (document["time_enabled_ns"] is None) == ("-s" not in options)
        assert recording.info.state == "running"


@pytest.mark.parametrize("options", [["-s"], []], ids=["with times", "without times"])
def test_the_copies_of_other_cpus_are_not_taken_for_multiplexing(
    options: list[str], tmp_path: Path, eventually: Eventually, cli: Cli
) -> None:
    """A breakpoint, the one kind of event on any machine that shares hardware."""
    with subprocess.Popen(
        [sys.executable, "-c", BREAKPOINT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as task:
        into, out = task.stdin, task.stdout
        assert into is not None and out is not None
        options += ["-e", f"mem:{out.readline().strip()}:w", "-p", str(task.pid)]
        with perf_record(tmp_path / "perf.data", *options) as pid:
            eventually(lambda: adopts(pid))

            def counts_writes() -> bool:
                into.write("\n")
                into.flush()
                assert out.readline() == "written\n"
                return perfkeep.Recording("taken").stat().events[0].value > 0

            eventually(counts_writes)
            (counts,) = perfkeep.Recording("taken").stat().events
            timed = "-s" in options
            assert counts.estimate == (counts.value if timed else None)
            printed = cli("stat", "taken").out.splitlines()[1]
            assert printed.split()[0] == str(counts.value) and "%" not in printed
            assert ("for an unknown share of the time" in printed) != timed
        task.kill()


BREAKPOINT = """
import ctypes, os, sys
os.sched_setaffinity(0, [0])
word = ctypes.c_int64()
print(hex(ctypes.addressof(word)), flush=True)
for line in sys.stdin:
    word.value += 1
    print("written", flush=True)
"""


@pytest.mark.parametrize("events", ["page-faults", "{cpu-clock,page-faults}:S"])
@pytest.mark.parametrize("per_task", [False, True])
def test_events_of_a_cpu_are_told_from_those_of_a_task(
    per_task: bool, events: str, caller: Callers, tmp_path: Path, eventually: Eventually
) -> None:
    options = ["-p", str(caller(0).pid)] if per_task else ["-C", "0"]
    with perf_record(tmp_path / "perf.data", "-e", events, *options) as pid:
        eventually(lambda: adopts(pid))
        program = perfkeep.Recording("taken").info.target.program
        assert program is not None and program.per_task == per_task


def test_nothing_is_opened_for_tasks_that_are_not_known(
    caller: Callers, tmp_path: Path, eventually: Eventually, cli: Cli
) -> None:
    task = caller(0)
    with perf_record(tmp_path / "perf.data", "-e", CALLS, "-p", str(task.pid)) as pid:
        eventually(lambda: adopts(pid))
        added = cli("add", "taken", "-e", "page-faults")
        assert added.code != 0 and "follow tasks that the kernel does not name" in added.err
        (event,) = perfkeep.Recording("taken").info.events
        if len(event.cpus) > 1:
            with pytest.raises(BrokerError, match=f"tasks that process {pid} "):
                perfkeep.reopen(event.id, event.cpus[0])
        missing = messages.Missing(
            "taken", perfkeep.Recording("taken").info.target, {}, [0], 0, None
        )
        assert "follow tasks that the kernel does not name" in open_again(missing).problems[0]


def adopts(pid: int) -> bool:
    try:
        return bool(adopt(pid, "taken").info.events)
    except perfkeep.PerfkeepError:
        return False


@pytest.mark.parametrize("options", [["-F", "999"], ["-F", "999", "--overwrite"], ["-c", "100000"]])
def test_events_that_perf_record_disabled_are_not_taken_for_recorded(
    options: list[str], tmp_path: Path, eventually: Eventually, cli: Cli
) -> None:
    command = ["-C", "0", "-e", "cpu-clock", "-m", "4M", *options]
    with perf_record(tmp_path / "perf.data", *command) as pid:
        recording = adopted(pid, eventually)
        assert not recording.info.problem
        os.kill(pid, signal.SIGINT)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    reason = f"process {pid} (perf), which opened its events, disabled them"
    assert recording.info.problem == reason
    for last in ([], ["--last", "1s"]):
        ran = cli("snapshot", "taken", "-o", tmp_path / "late.data", *last)
        assert ran.code == 3 and f"until now ({reason})" in ran.err
        assert ran.err.endswith("hint: perfkeep enable taken\n")
    assert reason in cli("stat", "taken").err and "running!" in cli("ls").out
    assert cli("enable", "taken").code == 0
    assert not recording.info.problem
    assert "until now" not in cli("snapshot", "taken", "-o", tmp_path / "late.data").err


def test_events_of_a_killed_perf_record_count_on(tmp_path: Path, eventually: Eventually) -> None:
    with perf_record(tmp_path / "perf.data", "-C", "0", "-F", "999", "-e", "cpu-clock") as pid:
        recording = adopted(pid, eventually)
    assert not recording.info.problem


def test_enable_resumes_what_perf_record_overwrite_paused(
    tmp_path: Path, eventually: Eventually
) -> None:
    """perf's own ring for task records has the same size, and does not overwrite."""
    options = ["-C", "0", "-F", "999", "-e", "cpu-clock", "--overwrite"]
    with perf_record(tmp_path / "perf.data", *options) as pid:
        recording = adopted(pid, eventually)
        assert recording.info.ring.overwrites
        os.kill(pid, signal.SIGINT)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    recording.enable()

    def newest() -> int:
        with recording.snapshot() as snapshot:
            assert not snapshot.coverage.cpus[0].stopped
            return snapshot.coverage.last_ns or 0

    before = newest()
    eventually(lambda: newest() > before + 10**9 // 10)
