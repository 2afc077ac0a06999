"""From an attr back to what a user would type."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep import events
from perfkeep.abi.perf_event import Attr, Flag, Hardware, Software, Type
from perfkeep.events.naming import event_of
from perfkeep.kernel import pmus
from perfkeep.testing.requirements import requires, tracefs, uprobes

LEVELS = Flag.EXCLUDE_USER | Flag.EXCLUDE_KERNEL | Flag.EXCLUDE_HV


@st.composite
def attrs(draw: st.DrawFn) -> Attr:
    type, config = draw(
        st.one_of(
            st.tuples(st.just(Type.SOFTWARE), st.sampled_from(list(Software))),
            st.tuples(st.just(Type.HARDWARE), st.sampled_from(list(Hardware))),
            st.tuples(st.just(Type.RAW), st.integers(0, 2**64 - 1)),
            st.tuples(st.just(Type.HW_CACHE), st.integers(0, 2**24)),
            st.tuples(st.integers(1000, 2**32 - 1), st.integers(0, 2**64 - 1)),
        )
    )
    excluded = draw(
        st.sampled_from([Flag(0), Flag.EXCLUDE_USER, Flag.EXCLUDE_KERNEL | Flag.EXCLUDE_HV])
    )
    flags = excluded | draw(st.sampled_from([Flag(0), Flag.PINNED, Flag.EXCLUDE_IDLE]))
    period = draw(st.sampled_from([0, 1, 99, 2**40]))
    if period == 99:
        flags |= Flag.FREQ
    return Attr(type, config, sample_period=period, flags=flags, precise_ip=draw(st.integers(0, 3)))


@given(attrs())
def test_what_is_found_is_parsed_to_the_same_attr(attr: Attr) -> None:
    (again,) = events.parse(event_of(attr).text)
    # Of levels, what is left out with others is not said apart from them.
    assert replace(again.attr, flags=again.attr.flags & ~LEVELS) == replace(
        attr, flags=attr.flags & ~LEVELS
    )
    kept = LEVELS & ~attr.flags
    assert LEVELS & ~again.attr.flags == (kept if kept != LEVELS else LEVELS)


@requires(tracefs)
@pytest.mark.parametrize(
    "text", ["sched:sched_switch", "sched:sched_switch:k", "sched:sched_wakeup/period=7/u"]
)
def test_a_tracepoint_is_found_by_its_number(text: str) -> None:
    (event,) = events.parse(text)
    assert event_of(event.attr) == event


def test_a_tracepoint_that_is_gone_keeps_its_number() -> None:
    text = event_of(Attr(Type.TRACEPOINT, 1 << 30)).text
    assert text == f"tracepoint/config={1 << 30:#x}/"
    assert events.parse(text)[0].attr == Attr(Type.TRACEPOINT, 1 << 30)


@pytest.mark.parametrize("text", ["mem:0x1000/8:rw", "mem:0x1000/1:w", "mem:0x1000/8:x"])
def test_a_breakpoint_is_found(text: str) -> None:
    (event,) = events.parse(text)
    assert event_of(event.attr).attr == event.attr
    assert event_of(event.attr).text == text


@requires(uprobes)
def test_a_probe_is_found_by_the_file_that_it_is_in() -> None:
    (event,) = events.parse("uprobe:/usr/bin/env:0x1000")
    assert event_of(event.attr, "/usr/bin/env") == event
    returns = replace(event.attr, config=1)
    assert event_of(returns, "/usr/bin/env").text == "uretprobe:/usr/bin/env:0x1000"


def test_what_only_a_pmu_knows_is_named_by_its_fields() -> None:
    name = next(
        one
        for one in pmus.names()
        if one not in ("uprobe", "kprobe", "persistent") and pmus.type_of(one) > 5
    )
    attr = Attr(pmus.type_of(name), 0x3, config1=0x10)
    event = event_of(attr)
    assert event.text == f"{name}/config=0x3,config1=0x10/"
    assert events.parse(event.text)[0].attr == attr
