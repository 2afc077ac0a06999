"""What of a ring's copy is kept, and what is said of the rest."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Sample
from perfkeep.abi.records import Record
from perfkeep.formats.perf_data import Coverage, EventDesc, RingCopy, Window
from perfkeep.formats.perf_data.coverage import Clock, cut
from perfkeep.testing.assembler import Assembler, Ring

EVENT = Assembler()
SIZE = 4096
Kind = Literal["backward", "forward"]


def clock() -> Clock:
    return Clock([EventDesc("e", EVENT.attr, {0: [EVENT.id]}, None)])


def fill(kind: Kind, times: range) -> Ring:
    ring = Ring(SIZE, kind == "backward")
    for time in times:
        ring.write(EVENT.sample(time))
    return ring


def copy(ring: Ring, moved: int = 0, max_record: int = 64) -> RingCopy:
    after = ring.data_head + (-moved if ring.backward else moved)
    kind: Kind = "backward" if ring.backward else "forward"
    data = memoryview(ring.linear())
    return RingCopy(0, data, ring.data_head, after % (1 << 64), kind, SIZE, max_record)


def times(kept: memoryview) -> list[int]:
    size = len(EVENT.sample(0))
    assert len(kept) % size == 0
    return sorted(
        int.from_bytes(kept[at + 24 : at + 32], "little") for at in range(0, len(kept), size)
    )


both = pytest.mark.parametrize("kind", ["backward", "forward"])


@both
def test_a_ring_that_never_wrapped_is_kept_whole(kind: Kind) -> None:
    kept, covered = cut(copy(fill(kind, range(10, 20))), Window(), clock())
    assert times(kept) == list(range(10, 20))
    assert (covered.first_ns, covered.last_ns, covered.records) == (10, 19, 10)
    assert covered.reached and not covered.overwritten


@both
def test_an_empty_ring_covers_nothing_and_reaches(kind: Kind) -> None:
    kept, covered = cut(copy(Ring(SIZE, kind == "backward")), Window(since_ns=5), clock())
    assert len(kept) == 0 and covered.first_ns is None and covered.reached


@both
def test_of_a_wrapped_ring_the_newest_records_are_kept(kind: Kind) -> None:
    kept, covered = cut(copy(fill(kind, range(1000))), Window(), clock())
    found = times(kept)
    assert found == list(range(found[0], 1000))
    # All that fits, less what may have been written during the copy.
    assert len(found) >= (SIZE - 4 * 64) // len(EVENT.sample(0)) - 1
    assert covered.first_ns == found[0] and covered.last_ns == 999


@both
def test_what_was_overwritten_during_the_copy_is_cut_off_and_counted(kind: Kind) -> None:
    still, _ = cut(copy(fill(kind, range(1000))), Window(), clock())
    moved, covered = cut(copy(fill(kind, range(1000)), moved=1024), Window(), clock())
    assert covered.overwritten == 1024
    assert len(still) - len(moved) in range(1024 - 64, 1024 + 64)
    assert times(moved)[-1] == 999


@both
def test_a_ring_overwritten_as_a_whole_covers_nothing_and_says_so(kind: Kind) -> None:
    kept, covered = cut(copy(fill(kind, range(1000)), moved=SIZE), Window(), clock())
    assert len(kept) == 0
    assert covered.overwritten == SIZE and not covered.reached


@both
def test_room_that_was_never_written_takes_what_came_during_the_copy(kind: Kind) -> None:
    ring = fill(kind, range(10))
    kept, covered = cut(copy(ring, moved=SIZE // 2), Window(), clock())
    assert times(kept) == list(range(10)) and covered.overwritten == 0


@both
@given(st.integers(0, 1100), st.integers(0, 1100))
def test_a_window_keeps_just_the_records_in_it(kind: Kind, since: int, until: int) -> None:
    ring = copy(fill(kind, range(0, 1000, 2)))
    everything = times(cut(ring, Window(), clock())[0])
    kept, covered = cut(ring, Window(since, until), clock())
    assert times(kept) == [time for time in everything if since <= time <= until]
    assert covered.reached == (everything[0] <= since)
    assert covered.records == len(times(kept))


@both
def test_a_young_ring_reaches_however_much_is_asked_for(kind: Kind) -> None:
    _, covered = cut(copy(fill(kind, range(100, 110))), Window(since_ns=1), clock())
    assert covered.reached


def test_records_of_several_events_are_told_apart_by_their_id() -> None:
    other = Assembler(id=8, sample_type=EVENT.sample_type | 1)  # with an IP before the time
    ring = Ring(SIZE)
    for time in range(0, 20, 2):
        ring.write(EVENT.sample(time))
        ring.write(other.sample(time + 1, ip=2**60))
    events = [
        EventDesc("a", EVENT.attr, {0: [EVENT.id]}, None),
        EventDesc("b", other.attr, {0: [other.id]}, None),
    ]
    _, covered = cut(copy(ring), Window(since_ns=5, until_ns=14), Clock(events))
    assert (covered.first_ns, covered.last_ns, covered.records) == (5, 14, 10)


def test_lost_samples_are_told() -> None:
    ring = Ring(SIZE)
    ring.write(EVENT.sample(1))
    ring.write(EVENT.lost(12, 2))
    assert cut(copy(ring), Window(), clock())[1].lost == 12


@pytest.mark.parametrize("window", [Window(), Window(since_ns=1)])
@both
def test_a_chain_that_breaks_off_is_not_taken_for_the_whole_ring(
    kind: Kind, window: Window
) -> None:
    ring = copy(fill(kind, range(10, 20)))
    broken = bytearray(ring.data)
    broken[5 * len(EVENT.sample(0))] = 0  # a record of type 0
    kept, covered = cut(replace(ring, data=memoryview(broken)), window, clock())
    assert len(times(kept)) == 5 and not covered.reached


@both
def test_records_without_a_time_are_kept_whatever_the_window(kind: Kind) -> None:
    timeless = Assembler(sample_type=Sample.IDENTIFIER | Sample.TID)
    ring = Ring(SIZE, kind == "backward")
    for pid in range(1000):
        ring.write(timeless.sample(0, pid=pid))
    known = Clock([EventDesc("e", timeless.attr, {0: [timeless.id]}, None)])
    everything, _ = cut(copy(ring), Window(), known)
    kept, covered = cut(copy(ring), Window(since_ns=5, until_ns=6), known)
    assert kept == everything and covered.records > 10
    assert covered.first_ns is None and not covered.reached


@both
@given(
    st.lists(st.sampled_from([Record.THROTTLE, Record.UNTHROTTLE, Record.SAMPLE]), max_size=200),
    st.integers(0, 200),
)
def test_what_was_throttled_within_the_window_is_counted(
    kind: Kind, kinds: list[Record], since: int
) -> None:
    ring = Ring(1 << 16, kind == "backward")
    for time, record in enumerate(kinds):
        body = struct.pack("=QQQ", time, EVENT.id, EVENT.id)
        is_sample = record == Record.SAMPLE
        ring.write(EVENT.sample(time) if is_sample else EVENT.other(record, body, time))
    head, data = ring.data_head, memoryview(ring.linear())
    copied = RingCopy(3, data, head, head, kind, 1 << 16, 64)
    _, covered = cut(copied, Window(since_ns=since), clock())
    expected = kinds[since:].count(Record.THROTTLE)
    assert covered.throttled == ({0: expected} if expected else {})
    assert Coverage([covered], ["e"]).throttled == ({("e", 3): expected} if expected else {})
