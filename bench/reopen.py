"""Reopening by id through the library, beside a raw perf_event_open(2)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import perfkeep
from bench.figure import Budget, Figure
from bench.ground import instance
from perfkeep import events
from perfkeep.kernel import cpus
from perfkeep.kernel.syscalls import perf_event_open

RUNS = 3000
EVENT = "cpu-clock"


def _p50(operation: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        opened = operation()
        times.append(time.perf_counter() - begin)
        opened.close()  # type: ignore[attr-defined]
    return statistics.median(times)


def with_registered(count: int) -> tuple[float, float]:
    """(reopen, raw open) in seconds, p50, with `count` events registered."""
    with instance():
        per_cpu = count // len(cpus.online())
        name = perfkeep.start("many", [EVENT] * per_cpu, ring="64K", enable=False).name
        id = perfkeep.Recording(name).info.events[per_cpu // 2].id
        attr = events.for_counting(events.parse(EVENT)[0])
        raw = _p50(lambda: perf_event_open(attr, -1, 0))
        return _p50(lambda: perfkeep.reopen(id, 0)), raw


def measure() -> list[Figure]:
    few, raw = with_registered(10)
    many, _ = with_registered(10_000)
    return [
        Figure(
            "µs to reopen by id, p50, 10 events registered",
            few * 1e6,
            f"raw perf_event_open: {few / raw:.1f}×",
            raw * 1e6,
            Budget("at most 10×", few / raw, 10),
        ),
        Figure(
            "the same, 10,000 events registered",
            many * 1e6,
            f"with 10: {many / few:.2f}×",
            few * 1e6,
            Budget("no slower", many / few, 1.1),
        ),
    ]
