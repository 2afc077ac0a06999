"""`perfkeep stat`: the units of counts, and clocks whose count cannot be right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.cli import stat
from perfkeep.wire.messages import Counts, EventCounts


def clock(value: int, ran: int) -> EventCounts:
    return EventCounts(1, "cpu-clock", [Counts(0, value, ran, ran, 0)], unit="ns")


def test_a_clock_is_printed_in_msec_as_by_perf_and_an_event_as_a_number() -> None:
    events = [clock(3_209_049_245, 3_209_049_245), EventCounts(2, "sched:sched_switch", [])]
    header, first, second = stat._table(events, None).splitlines()
    assert first.split()[:3] == ["3,209.05", "msec", "cpu-clock"]
    assert second.split()[:2] == ["0", "sched:sched_switch"]
    assert header.split() == ["COUNT", "EVENT", "CPU-SECONDS", "LOST"]


def test_events_that_are_written_alike_are_told_apart_by_their_ids() -> None:
    events = [EventCounts(number, "cpu-clock", []) for number in (1, 2)]
    events.append(EventCounts(3, "page-faults", []))
    _, first, second, third = stat._table(events, None).splitlines()
    assert "cpu-clock (id 1)" in first and "cpu-clock (id 2)" in second
    assert "id" not in third


@pytest.mark.parametrize("value, off", [(500, True), (15_000, True), (990, False), (1001, False)])
def test_a_clock_that_did_not_count_the_time_it_ran_is_reported(value: int, off: bool) -> None:
    assert stat._is_off(clock(value, 1000)) == off


@given(st.integers(0, 2**64 - 1))
def test_nothing_is_said_of_an_event_that_is_no_clock_or_has_no_times(value: int) -> None:
    assert not stat._is_off(EventCounts(1, "page-faults", [Counts(0, value, 1000, 1000, 0)]))
    assert not stat._is_off(clock(value, 0))
