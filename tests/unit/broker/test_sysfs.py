"""Names of events in sysfs."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.broker.registry import KindOfEvent, Recording
from perfkeep.broker.sysfs import entries, entry_name
from perfkeep.wire.messages import Kind, Owner, Ring, Target


def recording(name: str, *kinds: str) -> Recording:
    made = Recording(1, name, Owner(0, 0, 1, ""), Ring("backward", 4096), Target(), 0)
    for id, kind in enumerate(kinds, 1):
        made.kinds[id] = KindOfEvent(id, Kind(kind, kind, bytes(64)))
    return made


@given(st.text(min_size=1))
def test_any_name_becomes_one_that_perf_s_parser_takes(text: str) -> None:
    name = entry_name(text)
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name)
    assert not name.endswith((".scale", ".unit", ".per-pkg", ".snapshot"))
    assert name.lower() not in ("name", "period", "config", "id")


@pytest.mark.parametrize("name", ["flight", "my-name", "a.b", "L1-dcache-loads", "cycles", "_x"])
def test_a_name_that_perf_takes_stays(name: str) -> None:
    assert entry_name(name) == name


def test_one_kind_alone_has_the_recording_s_name() -> None:
    assert entries(recording("flight", "cpu-clock")) == {"flight": 1}


def test_what_an_ioctl_made_persistent_has_its_number_and_a_name_for_perf() -> None:
    assert entries(recording("5", "cpu-clock")) == {"5": 1, "_5": 1}


@given(st.lists(st.sampled_from(["cs", "CS", "a:b", "a_b", "a.b", "x/y/u"]), min_size=2))
def test_each_of_several_kinds_has_a_name_of_its_own(kinds: list[str]) -> None:
    found = entries(recording("flight", *kinds))
    assert sorted(found.values()) == list(range(1, len(kinds) + 1))
    assert len({name.lower() for name in found}) == len(found)
    assert all(name.startswith("flight.") for name in found)
