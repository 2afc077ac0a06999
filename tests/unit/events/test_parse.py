"""One -e argument → events."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Attr, Flag
from perfkeep.errors import SpecError
from perfkeep.events import Event, parse


def one(text: str) -> Event:
    (event,) = parse(text)
    return event


@pytest.mark.parametrize(
    ("typed", "text", "name"),
    [
        ("cpu-clock", "cpu-clock", "cpu-clock"),
        ("cpu-clock/freq=999/u", "cpu-clock/freq=999/u", "cpu-clock:u"),
        ("cpu-clock/freq=999,name=tick/u", "cpu-clock/freq=999,name=tick/u", "tick"),
        (" cs:u ", "cs:u", "cs:u"),
        ("{cs}:k", "cs:k", "cs:k"),
        ("r1a8:u", "r1a8:u", "r1a8:u"),
        ("4:0x1a8:u", "4:0x1a8:u", "4:0x1a8:u"),
        ("1:3/period=2/u", "1:3/period=2/u", "1:3:u"),
    ],
)
def test_an_event_can_be_typed_again(sysfs: Path, typed: str, text: str, name: str) -> None:
    event = one(typed)
    assert (event.text, event.name) == (text, name)
    again = one(event.text)
    assert (again.text, again.name, again.attr) == (text, name, event.attr)


def test_a_group_is_led_by_its_first_event(sysfs: Path) -> None:
    events = parse("cs,{faults,cpu-clock}:uD,{cs,faults}")
    assert [event.group for event in events] == [None, 1, 1, 2, 2]
    assert [event.text for event in events][1:3] == ["faults:uD", "cpu-clock:u"]
    assert events[1].attr.flags & Flag.PINNED
    assert not events[2].attr.flags & Flag.PINNED


def test_tools_times_are_the_dummies_that_perf_opens(sysfs: Path) -> None:
    assert one("duration_time").attr == Attr(type=1, config=9)


@pytest.mark.parametrize(
    ("text", "number", "part"),
    [
        ("cpu-clok", errno.ENOENT, "cpu-clok"),
        (300 * "x", errno.ENOENT, 300 * "x"),
        ("cpu-clock:z", errno.EINVAL, "z"),
        ("cpu-clock:", errno.EINVAL, "cpu-clock:"),
        ("cpu-clock:u/freq=3/", errno.EINVAL, "cpu-clock:u"),
        ("1:", errno.EINVAL, "config="),
        ("4294967296:0", errno.EINVAL, "4294967296:0"),
        ("cs\0", errno.EINVAL, "\0"),
    ],
)
def test_a_bad_spec_names_the_part_that_is_wrong(
    sysfs: Path, text: str, number: int, part: str
) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert (caught.value.errno, caught.value.part) == (number, part)


def test_a_misspelt_name_gets_close_ones(sysfs: Path) -> None:
    with pytest.raises(SpecError, match="did you mean cpu-clock") as caught:
        parse("cpu-clok")
    assert caught.value.suggestions[0] == "cpu-clock"


PIECES = ["cs", "cpu-clock", "sched", "sched_switch", "cpu", "mem", "0x10", "r1a", ":", ":", "/",
          "/", ",", "{", "}", "u", "k", "p", "*", "freq=9", "event=1", "=", "'", "-", " ",
          "uprobe", "kprobe", "4", "name=x", "uncore_imc", "reads"]  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_any_text_is_events_that_can_be_typed_again_or_a_refusal_with_its_part(
    sysfs: Path, tracing: Path, text: str
) -> None:
    try:
        events = parse(text)
    except SpecError as error:
        assert error.errno in (errno.EINVAL, errno.ENOENT, errno.ENODEV)
        assert str(error)
        return
    assert events
    for event in events:
        again = one(event.text)
        assert (again.name, again.attr) == (event.name, event.attr)
        assert event.attr.pack()
