"""Names that every machine has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Attr, Hardware, Software, Type
from perfkeep.events import names


@pytest.mark.parametrize(
    ("name", "attr"),
    [
        ("cycles", Attr(type=Type.HARDWARE, config=Hardware.CPU_CYCLES)),
        ("ref-cycles", Attr(type=Type.HARDWARE, config=Hardware.REF_CPU_CYCLES)),
        ("cs", Attr(type=Type.SOFTWARE, config=Software.CONTEXT_SWITCHES)),
        ("branches", Attr(type=Type.HARDWARE, config=Hardware.BRANCH_INSTRUCTIONS)),
        ("branch-loads", Attr(type=Type.HW_CACHE, config=5)),
        ("LLC-store-misses", Attr(type=Type.HW_CACHE, config=2 | 1 << 8 | 1 << 16)),
        ("llc-misses-stores", Attr(type=Type.HW_CACHE, config=2 | 1 << 8 | 1 << 16)),
        ("dTLB-speculative-read", Attr(type=Type.HW_CACHE, config=3 | 2 << 8)),
        ("node", Attr(type=Type.HW_CACHE, config=6)),
        ("r1a8", Attr(type=Type.RAW, config=0x1A8)),
        ("rFFFFFFFFFFFFFFFF", Attr(type=Type.RAW, config=2**64 - 1)),
    ],
)
def test_a_name_has_the_type_and_config_of_the_header(name: str, attr: Attr) -> None:
    assert names.attr_of(name) == attr


@pytest.mark.parametrize(
    "name",
    ["", "cycle", "LLC-", "LLC-loads-stores", "LLC-misses-misses", "iTLB-stores", "branch-stores",
     "r", "rxyz", "r10000000000000000", "sched:sched_switch"],
)  # fmt: skip
def test_what_is_no_name_is_none(name: str) -> None:
    assert names.attr_of(name) is None


def test_every_suggested_name_is_one() -> None:
    assert all(names.attr_of(name) for name in names.all_names())


@given(st.integers(0, 2**64 - 1))
def test_a_raw_event_has_the_config_that_it_spells(config: int) -> None:
    assert names.attr_of(f"r{config:x}") == Attr(type=Type.RAW, config=config)


@given(st.text(max_size=30))
def test_any_text_is_a_name_or_none(text: str) -> None:
    attr = names.attr_of(text)
    assert attr is None or attr.pack()
