"""Tracepoints of a tracefs that is made up."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from perfkeep.abi.perf_event import Attr, Flag, Type
from perfkeep.errors import SpecError
from perfkeep.events import parse


def test_a_tracepoint_has_its_id_and_its_format(tracing: Path) -> None:
    (event,) = parse("sched:sched_switch")
    assert event.attr == Attr(type=Type.TRACEPOINT, config=372)
    assert event.tracepoint is not None
    assert event.tracepoint[:3] == ("sched", "sched_switch", 372)
    assert event.tracepoint.format.startswith("name: sched:sched_switch\nID: 372")
    assert event.text == event.name == "sched:sched_switch"


def test_a_glob_gives_one_event_for_each_match_in_order(tracing: Path) -> None:
    wakeups = ["sched:sched_wakeup", "sched:sched_wakeup_new"]
    assert [event.text for event in parse("sched:*wakeup*")] == wakeups
    assert [event.text for event in parse("s*:sched_wake?p*")] == wakeups
    everything = ["irq:softirq_entry", "sched:sched_switch", *wakeups]
    assert [event.text for event in parse("*:*")] == everything


def test_terms_and_modifiers_go_to_every_match(tracing: Path) -> None:
    for event in parse("sched:*/period=10/u"):
        assert event.attr.sample_period == 10
        assert event.attr.flags == Flag.EXCLUDE_KERNEL | Flag.EXCLUDE_HV
        assert event.text == f"{event.name.removesuffix(':u')}/period=10/u"
    assert [event.name for event in parse("sched:*wakeup:k")] == ["sched:sched_wakeup:k"]


def test_a_misspelt_tracepoint_gets_close_ones_of_its_system(tracing: Path) -> None:
    with pytest.raises(SpecError, match="no such tracepoint in 'sched'") as caught:
        parse("sched:sched_swich")
    assert caught.value.errno == errno.ENOENT
    assert caught.value.part == "sched:sched_swich"
    assert caught.value.suggestions[0] == "sched:sched_switch"
    assert "did you mean sched:sched_switch" in caught.value.hint


def test_a_misspelt_system_gets_close_tracepoints_of_all(tracing: Path) -> None:
    with pytest.raises(SpecError, match="no tracepoint system 'sch'") as caught:
        parse("sch:sched_switch")
    assert caught.value.suggestions[0] == "sched:sched_switch"


@pytest.mark.parametrize("spec", ["nosuch:foo", "sched:zzz"])
def test_where_nothing_is_close_the_hint_lists_what_there_is(tracing: Path, spec: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(spec)
    command, directory = caught.value.hint.split()
    assert command == "ls" and Path(directory).is_dir()


def test_a_misspelt_event_with_a_modifier_is_not_taken_for_a_tracepoint_alone(
    tracing: Path,
) -> None:
    with pytest.raises(SpecError) as caught:
        parse("cpu-clok:u")
    assert caught.value.suggestions[0] == "cpu-clock:u"


@pytest.mark.parametrize(
    "text",
    [
        "sched:no*", "no*:*", "sched:no_id", "sched:..", "..:sched", "sched:filter", "enable:x",
        "sched:" + 300 * "x",
    ],
)  # fmt: skip
def test_what_matches_nothing_is_unknown(tracing: Path, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("text", ["sched:", ":x", "sched:sched_switch:", "sched:a:b/period=1/"])
def test_too_many_or_too_few_parts_are_refused(tracing: Path, text: str) -> None:
    with pytest.raises(SpecError, match="system:name") as caught:
        parse(text)
    assert caught.value.errno == errno.EINVAL
