"""Resident memory of keeper and broker at 1, 100 and 1,000 events, beyond the rings."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import perfkeep
from bench.figure import Budget, Figure
from bench.ground import have_perf, instance, perf_record
from perfkeep.client.connection import call
from perfkeep.wire import messages

BUDGET_PER_EVENT = 0.1 * (1 << 20)


def _daemons() -> int:
    status, _ = call("GetStatus", messages.Nothing())
    assert isinstance(status, messages.Status)
    return status.broker.rss_bytes + status.keeper.rss_bytes


def _resident(events: int) -> int:
    with instance():
        specs = [f"dummy/period={period}/" for period in range(1, events + 1)]
        perfkeep.start("memory", specs, cpus=[0], ring="64K", enable=False)
        return _daemons()


def _perf_resident() -> int | None:
    if not have_perf():
        return None
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm"))
        process = stack.enter_context(perf_record(f"{directory}/perf", "-m", "64K"))
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) << 10


def measure() -> list[Figure]:
    perf = _perf_resident()
    base, figures = _resident(1), []
    for count in (1, 100, 1000):
        resident = base if count == 1 else _resident(count)
        each = (resident - base) / max(1, count - 1)
        budget = Budget("at most 0.1 MiB more per event", each, BUDGET_PER_EVENT)
        figures.append(
            Figure(
                f"MiB resident, keeper + broker, {count:,} events",
                resident / (1 << 20),
                "one perf record",
                perf and perf / (1 << 20),
                budget if count > 1 else None,
            )
        )
    return figures
