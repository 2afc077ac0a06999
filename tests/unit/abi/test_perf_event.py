"""struct perf_event_attr, there and back."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import ATTR_SIZE, Attr, Flag, ReadFormat, Sample
from perfkeep.abi.records import name_of

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
ATTRS = st.builds(
    Attr,
    type=U32,
    config=U64,
    sample_period=U64,
    sample_type=U64.map(Sample),
    read_format=U64.map(ReadFormat),
    flags=U64.map(lambda word: Flag(word & ~(3 << 15))),
    precise_ip=st.integers(0, 3),
    wakeup_events=U32,
    bp_type=U32,
    config1=U64,
    config2=U64,
    branch_sample_type=U64,
    sample_regs_user=U64,
    sample_stack_user=U32,
    clockid=st.integers(-(2**31), 2**31 - 1),
    sample_regs_intr=U64,
    aux_watermark=U32,
    sample_max_stack=st.integers(0, 2**16 - 1),
    aux_sample_size=U32,
    aux_action=U32,
    sig_data=U64,
    config3=U64,
)


@given(ATTRS)
def test_what_is_packed_is_unpacked(attr: Attr) -> None:
    assert Attr.unpack(attr.pack()) == attr


@given(ATTRS, st.sampled_from([64, 72, 80, 96, 104, 112, 120, 128]))
def test_an_older_and_shorter_attr_has_zeros_for_the_rest(attr: Attr, size: int) -> None:
    data = bytearray(attr.pack())
    data[4:8] = size.to_bytes(4, "little")
    short = Attr.unpack(bytes(data[:size]))
    assert short.pack()[8:size] == attr.pack()[8:size]
    assert short.pack()[size:] == bytes(ATTR_SIZE - size)


def test_what_is_shorter_than_any_attr_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 64"):
        Attr.unpack(bytes(63))


def test_flags_are_set_and_cleared() -> None:
    attr = Attr(flags=Flag.DISABLED | Flag.FREQ).with_flags(Flag.INHERIT, Flag.FREQ)
    assert attr.flags == Flag.DISABLED | Flag.INHERIT


def test_flags_of_a_later_kernel_stay_when_others_are_set_and_cleared() -> None:
    later = 1 << 45
    attr = Attr(flags=Flag(later | Flag.DISABLED)).with_flags(Flag.INHERIT, Flag.DISABLED)
    assert int(attr.flags) == later | Flag.INHERIT


def test_an_unknown_record_type_prints_as_its_number() -> None:
    assert name_of(9) == "SAMPLE" and name_of(200) == "unknown 200"


def test_attrs_that_others_make_up_are_not_remembered() -> None:
    before = len(Sample._value2member_map_)
    for number in range(1 << 13):
        attr = Attr.unpack(struct.pack("=IIQQQQQ", 1, 64, 0, 0, number * 77, 0, 0).ljust(64, b"\0"))
        assert attr.sample_type == number * 77
    assert len(Sample._value2member_map_) <= max(before, 4097)
