"""What the daemons do while recordings run and nobody asks: wake-ups and CPU ticks in 60 s."""

from __future__ import annotations

import tempfile
import time

import perfkeep
from bench.figure import Budget, Figure
from bench.ground import cpu_ticks_and_wakeups, have_perf, instance, load, perf_record
from perfkeep.client.connection import call, disconnect
from perfkeep.wire import messages

SECONDS = 60
EVENTS = ["sched:sched_switch", "cpu-clock/freq=999/"]


def _over(pids: list[int]) -> tuple[int, int]:
    """(ticks, wake-ups) of the processes in SECONDS."""
    before = [cpu_ticks_and_wakeups(pid) for pid in pids]
    time.sleep(SECONDS)
    after = [cpu_ticks_and_wakeups(pid) for pid in pids]
    ticks = sum(a[0] - b[0] for a, b in zip(after, before, strict=True))
    return ticks, sum(a[1] - b[1] for a, b in zip(after, before, strict=True))


def measure() -> list[Figure]:
    with instance(), load(0.001, 0):
        recording = perfkeep.start("idle", EVENTS, call_chains=True)
        status, _ = call("GetStatus", messages.Nothing())
        assert isinstance(status, messages.Status)
        disconnect()
        time.sleep(1)
        ticks, wakeups = _over([status.broker.pid, status.keeper.pid])
        recording.claim()
    peer: tuple[int | None, int | None] = (None, None)
    if have_perf():
        with (
            tempfile.TemporaryDirectory(prefix="pkb-", dir="/dev/shm") as directory,
            load(0.001, 0),
            perf_record(f"{directory}/perf") as process,
        ):
            peer = _over([process.pid])
    name = "perf record --overwrite --switch-output" if have_perf() else ""
    span = f"of keeper + broker in {SECONDS} s, recording"
    return [
        Figure(f"wake-ups {span}", wakeups, name, peer[1], Budget("0", wakeups, 0)),
        Figure(f"CPU ticks (10 ms) {span}", ticks, name, peer[0], Budget("0", ticks, 0)),
    ]
