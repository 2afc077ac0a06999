"""How much events record now, and which ring holds so much for so long."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from perfkeep.client.recording import Spec, start
from perfkeep.formats.perf_data import CpuCoverage
from perfkeep.units import parse_duration

#: A ring is asked for that holds a quarter more than was measured: rates change.
_MARGIN = 1.25


class Rate(NamedTuple):
    """What one CPU records.

    Attributes:
        wrapped: it was more than the ring held, so that only the end of it was counted.
    """

    cpu: int
    records_per_s: float
    bytes_per_s: float
    wrapped: bool


def _rate(found: CpuCoverage, seconds: float) -> Rate:
    """Over the span of what the ring holds once it has wrapped, and over all of the time before."""
    if found.wrapped and found.first_ns is not None and found.last_ns is not None:
        seconds = max(1, found.last_ns - found.first_ns) / 1e9
    return Rate(found.cpu, found.records / seconds, found.bytes / seconds, found.wrapped)


def measure(events: Sequence[Spec], seconds: float, **options: Any) -> list[Rate]:
    """Record for a moment, by a recording of its own that ends again.

    Args:
        options: cpus, pid, cgroup, ring and call_chains of `start`.
    """
    recording = start(f"size-{os.getpid()}", events, enable=False, **options)
    try:
        recording.enable()
        begin = time.monotonic()
        time.sleep(seconds)
        recording.disable()
        elapsed = time.monotonic() - begin
        with recording.snapshot() as snapshot:
            return [_rate(one, elapsed) for one in snapshot.coverage.cpus]
    finally:
        recording.claim()


def ring_for(rates: Sequence[Rate], last: str | float) -> int:
    """Bytes of the smallest ring that holds so long a time on the busiest of these CPUs."""
    most = max((one.bytes_per_s for one in rates), default=0.0)
    needed = most * parse_duration(last) / 1e9 * _MARGIN
    pages = 1
    while pages * mmap.PAGESIZE < needed:
        pages *= 2
    return pages * mmap.PAGESIZE
