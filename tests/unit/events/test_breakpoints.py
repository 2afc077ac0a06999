"""mem:ADDRESS[/LENGTH][:ACCESS]"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Attr, Flag, Type
from perfkeep.errors import SpecError
from perfkeep.events import parse

USER_ONLY = Flag.EXCLUDE_KERNEL | Flag.EXCLUDE_HV


def attr(address: int, length: int, access: int, flags: Flag = Flag(0)) -> Attr:
    return Attr(type=Type.BREAKPOINT, config1=address, config2=length, bp_type=access, flags=flags)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("mem:0x1000", attr(0x1000, 4, 3)),
        ("mem:4096:r", attr(0x1000, 4, 1)),
        ("mem:0x1000:w", attr(0x1000, 4, 2)),
        ("mem:0x1000:x", attr(0x1000, 8, 4)),
        ("mem:0x1000:xr", attr(0x1000, 4, 5)),
        ("mem:0x1000/1:w", attr(0x1000, 1, 2)),
        ("mem:0x1000/8:rw:u", attr(0x1000, 8, 3, USER_ONLY)),
        ("mem:0x1000:u", attr(0x1000, 4, 3, USER_ONLY)),
    ],
)
def test_a_breakpoint_has_perfs_defaults(text: str, wanted: Attr) -> None:
    (event,) = parse(text)
    assert (event.attr, event.text, event.name) == (wanted, text, text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("mem:", "mem:"),
        ("mem:main", "main"),
        ("mem:0x1000/9", "9"),
        ("mem:0x1000/0", "0"),
        ("mem:0x1000:rr", "rr"),
        ("mem:0x1000:rq", "rq"),
        ("mem:0x10000000000000000", "0x10000000000000000"),
        ("mem:0x1000:u:u", "mem:0x1000:u:u"),
    ],
)
def test_a_bad_breakpoint_is_named_by_its_part(text: str, part: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert caught.value.part == part


@given(st.integers(0, 2**64 - 1), st.integers(1, 8), st.sets(st.sampled_from("rwx"), min_size=1))
def test_a_breakpoint_is_at_the_address_that_it_spells(
    address: int, length: int, access: set[str]
) -> None:
    (event,) = parse(f"mem:{address:#x}/{length}:{''.join(access)}")
    bits = sum({"r": 1, "w": 2, "x": 4}[letter] for letter in access)
    assert event.attr == attr(address, length, bits)
