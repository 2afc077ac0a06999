"""The record walk, native and pure: the same promises of both."""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep import records
from perfkeep.abi.records import Record
from perfkeep.records import pure
from perfkeep.testing.assembler import Assembler, Ring, record
from perfkeep.testing.twins import native


def chain(count: int = 10) -> bytes:
    event = Assembler()
    return b"".join(event.sample(time) for time in range(count))


def test_a_whole_chain_is_walked_to_its_end(core: ModuleType) -> None:
    data = chain(10)
    end, count, lost, marks, _ = core.walk(data, 0, len(data), 4)
    size = len(data) // 10
    assert (end, count, lost, marks) == (len(data), 10, 0, [0, 4 * size, 8 * size])


def test_a_record_that_is_cut_off_is_not_counted(core: ModuleType) -> None:
    data = chain(3)
    end, count, *_ = core.walk(data[:-8], 0, len(data), 1)
    assert (end, count) == (len(data) // 3 * 2, 2)


@pytest.mark.parametrize(
    ("kind", "size"),
    [(0, 16), (9, 0), (9, 7), (9, 12), (9, 4096), (64, 16), (0xFFFFFFFF, 16)],
    ids=["no type", "no size", "short", "no word", "too long", "perf's own type", "huge type"],
)
def test_a_header_that_makes_no_sense_ends_the_chain(
    core: ModuleType, kind: int, size: int
) -> None:
    good = chain(2)
    data = good + struct.pack("=IHH", kind, 0, size) + bytes(24)
    assert core.walk(data, 0, len(data), 1)[:2] == (len(good), 2)


def test_lost_records_are_summed_up(core: ModuleType) -> None:
    event = Assembler()
    data = event.lost(3, 1) + event.sample(2) + event.lost(4, 3)
    data += event.other(Record.LOST_SAMPLES, struct.pack("=Q", 5), 4)
    assert core.walk(data, 0, len(data), 1)[2] == 12


def test_throttles_are_found_wherever_they_lie(core: ModuleType) -> None:
    event = Assembler()
    throttle = event.other(Record.THROTTLE, bytes(24), 2)
    data = throttle + event.sample(2) + event.other(Record.UNTHROTTLE, bytes(24), 3) + throttle
    assert core.walk(data, 0, len(data), 1)[4] == [0, len(data) - len(throttle)]


def test_nothing_is_walked_in_nothing(core: ModuleType) -> None:
    assert tuple(core.walk(b"", 0, 0, 1)) == (0, 0, 0, [], [])
    assert core.first_chained(b"", 0, b"") == 0


@pytest.mark.parametrize("arguments", [(-1, 8, 1), (0, 8, 0)])
def test_arguments_without_a_meaning_are_refused(
    core: ModuleType, arguments: tuple[int, int, int]
) -> None:
    with pytest.raises(ValueError, match="must be"):
        core.walk(bytes(8), *arguments)


@pytest.mark.parametrize("start", [8, 2**63 - 1])
@pytest.mark.parametrize("end", [-(2**63), -1, 0, 2**63 - 1])
def test_no_bytes_outside_are_touched_however_far_the_arguments_point(
    core: ModuleType, start: int, end: int
) -> None:
    assert tuple(core.walk(bytes(8), start, end, 1)) == (start, 0, 0, [], [])
    assert core.first_chained(bytes(8), start, b"") == 8


def test_the_first_whole_record_of_a_wrapped_forward_ring_is_found(core: ModuleType) -> None:
    event, ring = Assembler(), Ring(1024, backward=False)
    written = [event.sample(time, ip=time) for time in range(100)]
    for one in written:
        ring.write(one)
    data = ring.linear()
    first = core.first_chained(data, 0, struct.pack("=Q", event.id))
    whole = 1024 // len(written[0])
    assert data[first:] == b"".join(written[-whole:])


def test_bytes_inside_a_record_are_not_taken_for_one(core: ModuleType) -> None:
    # The raw bytes of this sample look like a header whose record ends where it does itself.
    event = Assembler(sample_type=Assembler().sample_type | 1 << 10)
    fake = record(Record.SAMPLE, bytes(16))
    data = event.sample(1, raw=bytes(4) + fake)
    assert core.first_chained(data, 8, struct.pack("=Q", event.id)) == len(data)
    assert core.first_chained(data, 0, struct.pack("=Q", event.id)) == 0


def test_without_any_chain_the_end_is_given(core: ModuleType) -> None:
    assert core.first_chained(b"\xff" * 64, 0, b"") == 64


def _both(call: Callable[[ModuleType], object]) -> tuple[object, object]:
    return call(pure), call(native())


HOSTILE = st.one_of(
    st.binary(max_size=400),
    st.lists(
        st.builds(
            lambda kind, size, rest: struct.pack("=IHH", kind, 0, size) + rest,
            st.integers(0, 66),
            st.integers(0, 80),
            st.binary(max_size=72),
        ),
        max_size=8,
    ).map(b"".join),
)


@given(HOSTILE, st.integers(0, 500), st.integers(0, 500), st.integers(1, 5))
def test_both_walks_agree_on_any_bytes(data: bytes, start: int, end: int, every: int) -> None:
    ours, theirs = _both(lambda one: tuple(one.walk(data, start, end, every)))
    assert ours == theirs


@given(HOSTILE, st.integers(0, 500), st.lists(st.integers(0, 2**64 - 1), max_size=3))
def test_both_find_the_same_first_record_in_any_bytes(
    data: bytes, start: int, ids: list[int]
) -> None:
    words = b"".join(struct.pack("=Q", id) for id in sorted(ids))
    ours, theirs = _both(lambda one: one.first_chained(data, start, words))
    assert ours == theirs


def test_the_walk_that_serves_is_the_native_one_where_it_was_built() -> None:
    native()
    assert records.NATIVE
    data = chain(5)
    assert records.walk(data, 0, len(data)) == pure.walk(data, 0, len(data), 256)
