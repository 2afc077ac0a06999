"""What an event is opened with when its text left that open."""

from __future__ import annotations

import pytest

from perfkeep.abi.perf_event import Attr, ClockId, Flag, ReadFormat, Sample, Software, Type
from perfkeep.errors import SpecError
from perfkeep.events import Event, for_counting, for_flight_ring, opening

BASE = Sample.IDENTIFIER | Sample.TID | Sample.TIME | Sample.CPU
TRACEPOINT = Event("sched:sched_switch", "sched:sched_switch", Attr(type=Type.TRACEPOINT, config=3))
CLOCK = Event("cpu-clock", "cpu-clock", Attr(type=Type.SOFTWARE))
TICK = Event("x", "x", Attr(type=Type.SOFTWARE, sample_period=99, flags=Flag.FREQ))
EVERY_TENTH = Event("x", "x", Attr(type=Type.TRACEPOINT, sample_period=10))
BREAKPOINT = Event("mem:0x10", "mem:0x10", Attr(type=Type.BREAKPOINT, config1=16, bp_type=3))
OUTPUT = Event("bpf-output", "x", Attr(type=Type.SOFTWARE, config=Software.BPF_OUTPUT))
PROBE = Event("uprobe:/bin/x:main", "x", Attr(type=8, config2=64), path="/bin/x")


@pytest.fixture(autouse=True)
def _rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_greatest_hz", lambda: 100_000)


@pytest.mark.parametrize(
    ("event", "period", "fields"),
    [
        (TRACEPOINT, 1, BASE | Sample.RAW),
        (EVERY_TENTH, 10, BASE | Sample.RAW),
        (BREAKPOINT, 1, BASE | Sample.IP | Sample.ADDR),
        (OUTPUT, 1, BASE | Sample.RAW),
        (PROBE, 1, BASE | Sample.IP),
        (CLOCK, 4000, BASE | Sample.IP | Sample.PERIOD),
        (TICK, 99, BASE | Sample.IP | Sample.PERIOD),
    ],
)
def test_a_flight_ring_gets_samples_with_the_fields_that_somebody_needs(
    event: Event, period: int, fields: Sample
) -> None:
    attr = for_flight_ring(event, call_chains=False)
    assert (attr.sample_period, attr.sample_type) == (period, fields)
    assert bool(attr.flags & Flag.FREQ) == bool(fields & Sample.PERIOD)
    assert (attr.type, attr.config, attr.config1, attr.config2, attr.bp_type) == (
        event.attr.type, event.attr.config, event.attr.config1, event.attr.config2,
        event.attr.bp_type,
    )  # fmt: skip
    with_chains = for_flight_ring(event, call_chains=True)
    assert with_chains.sample_type == fields | Sample.CALLCHAIN


def test_a_flight_ring_is_written_backward_on_the_common_clock_and_wakes_nobody() -> None:
    attr = for_flight_ring(TRACEPOINT, call_chains=False)
    assert attr.flags == (
        Flag.DISABLED | Flag.WRITE_BACKWARD | Flag.SAMPLE_ID_ALL | Flag.USE_CLOCKID | Flag.WATERMARK
    )
    assert attr.clockid == ClockId.MONOTONIC
    assert attr.wakeup_events == 2**32 - 1
    assert attr.read_format == (
        ReadFormat.TOTAL_TIME_ENABLED
        | ReadFormat.TOTAL_TIME_RUNNING
        | ReadFormat.ID
        | ReadFormat.LOST
    )


def test_only_a_process_is_followed_into_what_it_forks() -> None:
    attr = for_flight_ring(TRACEPOINT, call_chains=False, inherit=True)
    assert attr == for_flight_ring(TRACEPOINT, call_chains=False).with_flags(Flag.INHERIT)


def test_the_default_frequency_is_what_the_kernel_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_greatest_hz", lambda: 1000)
    assert for_flight_ring(CLOCK, call_chains=False).sample_period == 1000


def test_a_frequency_above_the_kernels_limit_is_refused_with_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(opening, "_greatest_hz", lambda: 50)
    for attr_of in (for_counting, lambda event: for_flight_ring(event, call_chains=False)):
        with pytest.raises(SpecError, match="perf_event_max_sample_rate = 50") as caught:
            attr_of(TICK)
        assert caught.value.part == "freq=99"


def test_counting_samples_only_when_the_text_said_so() -> None:
    attr = for_counting(CLOCK)
    assert (attr.sample_period, attr.sample_type, attr.flags) == (0, Sample(0), Flag.DISABLED)
    ticks = for_counting(TICK)
    assert (ticks.sample_period, ticks.sample_type) == (99, BASE | Sample.IP | Sample.PERIOD)
    assert not ticks.flags & Flag.WRITE_BACKWARD
    assert attr.read_format == ticks.read_format
    assert attr.read_format & ReadFormat.LOST
