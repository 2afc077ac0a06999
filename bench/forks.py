"""What it costs to know of every process that comes and goes, beside `perf record`, which writes the
same records to a file.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time

import perfkeep
from bench.figure import Figure
from bench.ground import EVENT, cpu_ticks_and_wakeups, have_perf, instance
from perfkeep.client.connection import call, disconnect
from perfkeep.wire import messages

SECONDS = 5.0
_MS_PER_TICK = 1000 / os.sysconf("SC_CLK_TCK")


def _spawned() -> int:
    """Processes that come and go one after the other, for so many seconds."""
    count, until = 0, time.monotonic() + SECONDS
    while time.monotonic() < until:
        os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ), 0)
        count += 1
    return count


def _broker() -> int:
    status, _ = call("GetStatus", messages.Nothing())
    assert isinstance(status, messages.Status)
    return status.broker.pid


def _ours() -> tuple[int, float]:
    """(processes, ms of CPU of the broker)"""
    with instance():
        recording = perfkeep.start("forks", [EVENT], ring="64K")
        broker = _broker()
        disconnect()
        before, _ = cpu_ticks_and_wakeups(broker)
        count = _spawned()
        after, _ = cpu_ticks_and_wakeups(broker)
        recording.claim()
    return count, (after - before) * _MS_PER_TICK


def _theirs() -> tuple[int, float]:
    with tempfile.TemporaryDirectory(prefix="pkb-", dir="/dev/shm") as directory:
        command = ["perf", "record", "-q", "-B", "-a", "-e", "dummy", "-o", f"{directory}/x"]
        with subprocess.Popen(command) as perf:
            time.sleep(1)
            before, _ = cpu_ticks_and_wakeups(perf.pid)
            count = _spawned()
            after, _ = cpu_ticks_and_wakeups(perf.pid)
            perf.send_signal(signal.SIGINT)
    return count, (after - before) * _MS_PER_TICK


def measure() -> list[Figure]:
    alone = _spawned()
    count, ours = _ours()
    peer, theirs, slowed = "", None, None
    if have_perf():
        peer = "perf record"
        others, cost = _theirs()
        theirs, slowed = cost / others * 1000, max(0.0, 1 - others / alone) * 100
    return [
        Figure(
            "ms of CPU to know of 1,000 processes that come and go",
            ours / count * 1000, peer, theirs,
        ),
        Figure(
            f"percent fewer than {alone / SECONDS:,.0f} processes per second meanwhile",
            max(0.0, 1 - count / alone) * 100, peer, slowed,
        ),
    ]  # fmt: skip
