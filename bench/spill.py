"""What a crash copy of the rings costs, beside writing them whole each time; and what is lost when
both daemons die.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import perfkeep
from bench.figure import Budget, Figure
from bench.ground import EVENT, instance, load
from perfkeep.client.connection import call, disconnect
from perfkeep.client.recover import look, recover
from perfkeep.kernel import cpus
from perfkeep.wire import messages

RING = 8 << 20
SECONDS = 20
EVERY_S = 1.0
DEATHS = 10


def _pids() -> list[int]:
    status, _ = call("GetStatus", messages.Nothing())
    assert isinstance(status, messages.Status)
    return [status.broker.pid, status.keeper.pid]


def _cpu_ns(pid: int) -> int:
    # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of <linux/posix-timers.h>
    return time.clock_gettime_ns((~pid << 3) | 2)


def _written(pid: int) -> int:
    """Bytes that a process gave to write(2) and its kind."""
    return int(Path(f"/proc/{pid}/io").read_text().split()[3])


def cost(directory: str, on: Sequence[int]) -> tuple[float, float]:
    """(ms of CPU, KiB written) of the broker for one spill of rings that get a second of records."""
    with instance(), ExitStack() as stack:
        for cpu in on:
            stack.enter_context(load(0.001, cpu))
        recording = perfkeep.start(
            "spilled", [EVENT], cpus=on, ring=RING, spill=directory, spill_every=EVERY_S
        )
        broker, _ = _pids()
        disconnect()
        time.sleep(2 * EVERY_S)
        before = _cpu_ns(broker), _written(broker)
        time.sleep(SECONDS)
        after = _cpu_ns(broker), _written(broker)
        recording.claim()
    spills = SECONDS / EVERY_S
    return (after[0] - before[0]) / 1e6 / spills, (after[1] - before[1]) / 1024 / spills


def whole(directory: str, rings: int) -> float:
    """ms of CPU for writing as many rings whole, to files that are there, until they are on disk."""
    times = []
    with ExitStack() as stack:
        memory = stack.enter_context(mmap.mmap(-1, RING))
        memory[:] = os.urandom(1 << 16) * (RING >> 16)
        files = [
            stack.enter_context(open(f"{directory}/whole.{number}", "wb", buffering=0))
            for number in range(rings)
        ]
        for _ in range(9):
            begin = time.process_time_ns()
            for file in files:
                os.pwrite(file.fileno(), memory, 0)
                os.fdatasync(file.fileno())
            times.append((time.process_time_ns() - begin) / 1e6)
    return statistics.median(times)


def loss(directory: str, cpu: int) -> float:
    """ms of what was recorded that are not in the copy, after both daemons were killed."""
    with instance(), load(0.0005, cpu):
        perfkeep.start(
            "spilled", [EVENT], cpus=[cpu], ring="1M", spill=directory, spill_every=EVERY_S
        )
        pids = _pids()
        disconnect()
        time.sleep(2 * EVERY_S + random.random() * EVERY_S)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        died = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        with recover(look(directory), None) as snapshot:
            last = snapshot.coverage.last_ns
    assert last is not None
    return (died - last) / 1e6


def measure() -> list[Figure]:
    on = cpus.online()[:2]
    with tempfile.TemporaryDirectory(prefix="pkb-") as directory:
        ms, kib = cost(f"{directory}/cost", on)
        peer = whole(directory, len(on))
        lost = [loss(f"{directory}/{number}", on[0]) for number in range(DEATHS)]
    size = len(on) * RING >> 10
    of = f"of one spill of {size >> 10} MiB of rings, after {EVERY_S:.0f} s"
    most = EVERY_S * 1100
    return [
        Figure(f"CPU ms {of}", ms, "writing them whole", peer, Budget("less", ms / peer, 1)),
        Figure(f"KiB written {of}", kib, "writing them whole", size, Budget("less", kib / size, 1)),
        Figure(
            f"ms lost at most when both die, of {DEATHS} times, spilled every {EVERY_S:.0f} s",
            max(lost),
            "perf record --overwrite: all",
            None,
            Budget(f"at most {most:,.0f}", max(lost), most),
        ),
    ]
