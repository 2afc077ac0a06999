"""From what `perf` users type to perf_event_attr: "sched:*", "cpu-clock/freq=99/u", "mem:0x10"."""

from __future__ import annotations

from perfkeep.events.event import Event
from perfkeep.events.opening import for_counting, for_flight_ring, told_apart
from perfkeep.events.parse import parse
from perfkeep.events.suggest import suggest

__all__ = ["Event", "for_counting", "for_flight_ring", "parse", "suggest", "told_apart"]
