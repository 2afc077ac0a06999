"""Locked memory of rings is given back when their recording ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import perfkeep
from perfkeep.client.connection import Connection
from perfkeep.testing.requirements import perf_events, requires, root
from perfkeep.wire.instance import current
from perfkeep.wire.messages import METHODS, Named
from support.instance import Running
from support.waiting import Eventually

pytestmark = requires(perf_events, root)


def pinned(pid: int) -> int:
    """KiB that the kernel charges a process for rings, beyond perf_event_mlock_kb."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmPin:"))


def rings_mapped(pid: int) -> int:
    return Path(f"/proc/{pid}/maps").read_text().count("anon_inode:[perf_event]")


def test_a_recording_that_ends_gives_its_locked_memory_back(
    running: Running, eventually: Eventually
) -> None:
    """The kernel charges the first process that maps a ring and credits the last that unmaps it."""
    perfkeep.start("first", ["cpu-clock/freq=1/"], ring="64K")
    broker, keeper = running.pids()
    charges = pinned(broker), pinned(keeper)
    perfkeep.start("second", ["cpu-clock/freq=1/", "dummy"], ring="8M")
    assert pinned(keeper) > charges[1]
    perfkeep.Recording("second").remove(["dummy"])
    perfkeep.Recording("second").claim()
    eventually(lambda: (pinned(broker), pinned(keeper)) == charges)


def test_a_recording_that_ends_while_a_snapshot_has_its_rings_gives_its_locked_memory_back(
    running: Running, eventually: Eventually
) -> None:
    perfkeep.start("first", ["cpu-clock/freq=1/"], ring="64K")
    broker, keeper = running.pids()
    charges = pinned(broker), pinned(keeper)
    recording = perfkeep.start("second", ["cpu-clock/freq=100/"], ring="8M")
    with Connection(current()) as reader:
        reader.call("BeginSnapshot", Named("second"), METHODS["BeginSnapshot"][1])
        recording.claim()
        assert rings_mapped(broker) > 0
    eventually(lambda: (pinned(broker), pinned(keeper)) == charges)


def test_a_new_broker_leaves_no_ring_of_an_ended_recording_with_the_keeper(
    running: Running, eventually: Eventually
) -> None:

    perfkeep.start("first", ["cpu-clock/freq=1/"], ring="64K")
    broker, keeper = running.pids()
    before = rings_mapped(keeper)
    perfkeep.start("second", ["cpu-clock/freq=1/"], ring="64K").claim()
    os.kill(broker, signal.SIGKILL)
    eventually(lambda: running.pids()[0] != broker)
    eventually(lambda: rings_mapped(keeper) == before)
