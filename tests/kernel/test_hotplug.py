"""CPUs that go offline and come back, and those that come for the first time."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import perfkeep
from perfkeep.client.connection import disconnect
from perfkeep.errors import BrokerError
from perfkeep.kernel.uevents import heard, watch_cpus
from perfkeep.testing.load import heartbeat
from perfkeep.testing.requirements import cpu_hotplug, perf_events, requires, tracefs
from support.caller import CALLS, Callers
from support.instance import Running
from support.waiting import Eventually

pytestmark = requires(perf_events, tracefs, cpu_hotplug)

Switch = Callable[[bool], None]


@pytest.fixture
def switch() -> Iterator[Switch]:
    """Takes CPU 1 offline and back; it is back afterwards."""
    path = Path("/sys/devices/system/cpu/cpu1/online")

    def turn(on: bool) -> None:
        path.write_text("1" if on else "0")

    yield turn
    turn(True)


def test_the_kernel_tells_of_cpus_and_of_nothing_else(switch: Switch) -> None:
    with watch_cpus() as sock:
        switch(False)
        switch(True)
        assert select.select([sock], [], [], 10)[0]
        assert next(heard(sock)) == 1  # it is still there for whoever looks next
        assert list(heard(sock)) == [1, None]
        assert not list(heard(sock))
        # A disk that is asked to tell of itself is nobody's business here.
        Path("/sys/class/net/lo/uevent").write_text("change")
        assert not select.select([sock], [], [], 0.1)[0]


def test_recording_goes_on_in_the_same_ring_when_a_cpu_comes_back(
    running: Running, caller: Callers, switch: Switch, eventually: Eventually,
    tracefs_mounted: Path,
) -> None:  # fmt: skip
    recording = perfkeep.start("flight", [CALLS, "cpu-clock/freq=99/"], ring="256K")
    one = caller(1)
    one.ask("call", 100)
    before = counts(recording)
    switch(False)
    eventually(lambda: recording.info.offline == [1])
    (gap,) = recording.info.gaps
    assert gap.cpus == [1] and gap.until_ns is None and "CPU 1 went offline" in gap.why
    assert recording.info.state == "running"
    assert counts(recording)[CALLS, 1] == before[CALLS, 1]
    switch(True)
    eventually(lambda: not recording.info.offline)
    (gap,) = recording.info.gaps
    assert gap.until_ns is not None
    os.sched_setaffinity(one.pid, [1])  # the kernel had moved it
    one.ask("call", 100)
    with recording.snapshot() as snapshot:
        assert one.numbers_in(snapshot) == list(range(1, 201))
        assert snapshot.gaps and not snapshot.complete
    assert counts(recording)[CALLS, 1] >= before[CALLS, 1] + 100
    assert [event.cpus for event in recording.info.events] == [[0, 1], [0, 1]]
    with perfkeep.reopen(recording.info.id, cpu=1) as event:
        value = event.read().value
        one.ask("call", 10)
        assert event.read().value >= value + 10


def counts(recording: perfkeep.Recording) -> dict[tuple[str, int], int]:
    return {
        (event.event, one.cpu): one.value
        for event in recording.stat().events
        for one in event.per_cpu
    }


def has_gaps(recording: perfkeep.Recording, count: int) -> bool:
    """So many, and all of them over."""
    info = recording.info
    return not info.offline and len(info.gaps) == count and all(gap.until_ns for gap in info.gaps)


def test_it_goes_on_through_many_rounds_and_through_deaths_of_the_daemons(
    running: Running, caller: Callers, switch: Switch, eventually: Eventually,
    tracefs_mounted: Path,
) -> None:  # fmt: skip
    recording = perfkeep.start("flight", [CALLS], ring="256K")
    one = caller(1)
    total = 0
    for round in range(4):
        one.ask("call", 50)
        total += 50
        switch(False)
        os.kill(running.pids()[round % 2], signal.SIGKILL)
        switch(True)
        disconnect()
        eventually(partial(has_gaps, recording, round + 1))
        os.sched_setaffinity(one.pid, [1])
    with recording.snapshot() as snapshot:
        assert one.numbers_in(snapshot) == list(range(1, total + 1))
    assert counts(recording)[CALLS, 1] >= total
    recording.claim()
    with pytest.raises(BrokerError):
        recording.info.name  # noqa: B018


def test_a_cpu_that_was_offline_at_the_start_joins_when_it_comes(
    running: Running, caller: Callers, switch: Switch, eventually: Eventually,
    tracefs_mounted: Path,
) -> None:  # fmt: skip
    switch(False)
    every = perfkeep.start("every", [CALLS], ring="64K")
    some = perfkeep.start("some", [CALLS], ring="64K", cpus=[0])
    assert every.info.events[0].cpus == [0]
    switch(True)
    eventually(lambda: every.info.events[0].cpus == [0, 1])
    assert some.info.events[0].cpus == [0]
    one = caller(1)
    one.ask("call", 20)
    with every.snapshot() as snapshot:
        assert one.numbers_in(snapshot) == list(range(1, 21))


def test_snapshots_that_run_meanwhile_are_whole(
    running: Running, caller: Callers, switch: Switch, eventually: Eventually,
    tracefs_mounted: Path,
) -> None:  # fmt: skip
    recording = perfkeep.start("flight", [CALLS], ring="1M")
    one = caller(0)
    with one.calling(every_us=200), heartbeat(cpu=1):
        seen: list[int] = []
        for on in (False, True, False, True):
            switch(on)
            with recording.snapshot() as snapshot:
                numbers = one.numbers_in(snapshot)
                (ring,) = [cpu for cpu in snapshot.coverage.cpus if cpu.cpu == 0]
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
            # A busy machine takes so long to switch a CPU that the ring wraps.
            assert numbers[0] == 1 or ring.wrapped
            assert not seen or numbers[-1] > seen[-1]
            seen = numbers
    eventually(lambda: not recording.info.offline)


def test_what_is_added_while_a_cpu_is_offline_joins_there_when_it_comes_back(
    running: Running, switch: Switch, eventually: Eventually, tracefs_mounted: Path
) -> None:
    recording = perfkeep.start("flight", [CALLS], ring="64K")
    switch(False)
    eventually(lambda: recording.info.offline == [1])
    recording.add(["cpu-clock"])
    assert [event.cpus for event in recording.info.events] == [[0, 1], [0]]
    switch(True)
    eventually(lambda: [event.cpus for event in recording.info.events] == [[0, 1], [0, 1]])


def test_processes_on_it_are_known_before_and_after(
    running: Running, switch: Switch, eventually: Eventually, tmp_path: Path
) -> None:
    recording = perfkeep.start("flight", ["cpu-clock/freq=299/"], ring="1M")
    loop = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done"

    def run(name: str) -> bool:
        """Whether a program of this name that ran on CPU 1 and ended is known by it."""
        program = tmp_path / name
        if not program.exists():
            shutil.copy("/bin/sh", program)
        subprocess.run(["taskset", "-c", "1", program, "-c", loop], check=True)
        return name in names()

    def names() -> set[str]:
        with recording.snapshot() as snapshot:
            rows = snapshot.sql("SELECT DISTINCT comm FROM cpu_clock WHERE cpu = 1").fetchall()
        return {comm for (comm,) in rows}

    assert run("early")
    switch(False)
    eventually(lambda: recording.info.offline == [1])
    assert "early" in names()
    switch(True)
    eventually(lambda: not recording.info.offline)
    # Its sideband comes a moment after its events.
    eventually(lambda: run("later"))
    assert {"early", "later"} <= names()
