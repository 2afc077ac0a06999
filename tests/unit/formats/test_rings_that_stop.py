"""A ring that does not overwrite: what is in it is whole, and what came later is reported as lost."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Sample
from perfkeep.formats.perf_data import RingCopy, Window
from perfkeep.formats.perf_data.coverage import Clock, CpuCoverage, cut
from perfkeep.formats.perf_data.event import EventDesc
from perfkeep.testing.assembler import Assembler, Ring

#: As perf record asks for it where all events record the same: ID in its place, no IDENTIFIER.
FIELDS = Sample.IP | Sample.TID | Sample.TIME | Sample.ID | Sample.CPU
EVENT, DUMMY = Assembler(sample_type=FIELDS), Assembler(id=8, sample_type=FIELDS)
SIZE, LONGEST = 4096, 256
Kind = Literal["backward", "forward"]
both = pytest.mark.parametrize("kind", ["backward", "forward"])


def clock() -> Clock:
    return Clock([EventDesc("e", one.attr, {0: [one.id]}, None) for one in (EVENT, DUMMY)])


def fill(kind: Kind, count: int) -> Ring:
    ring = Ring(SIZE, kind == "backward")
    for time in range(count):
        ring.write(EVENT.sample(time))
    return ring


def covers(
    ring: Ring, unread: int | None, lost: int | None, window: Window | None = None
) -> CpuCoverage:
    kind: Kind = "backward" if ring.backward else "forward"
    head, data = ring.data_head, memoryview(ring.linear())
    copy = RingCopy(0, data, head, head, kind, SIZE, LONGEST, unread, lost)
    return cut(copy, window or Window(), clock())[1]


EACH = len(EVENT.sample(0))
FULL = SIZE // EACH


@both
def test_times_are_read_where_the_id_lies_among_the_words(kind: Kind) -> None:
    covered = covers(fill(kind, 5), 5 * EACH, 0, Window(since_ns=3))
    assert (covered.first_ns, covered.last_ns, covered.records) == (3, 4, 2)


@both
@given(lost=st.integers(1, 1 << 40))
def test_a_full_ring_reports_what_the_kernel_counted_as_lost(kind: Kind, lost: int) -> None:
    covered = covers(fill(kind, FULL), FULL * EACH, lost)
    assert (covered.stopped, covered.reached, covered.lost) == (True, False, lost)
    # Nothing in it can have been overwritten while it was copied, so nothing is cut off.
    assert (covered.records, covered.overwritten) == (FULL, 0)


@both
def test_of_a_full_ring_whose_events_do_not_count_losses_nothing_is_promised(kind: Kind) -> None:
    covered = covers(fill(kind, FULL), FULL * EACH, None)
    assert (covered.stopped, covered.reached, covered.lost) == (True, False, 0)


@both
def test_a_full_ring_that_has_lost_nothing_so_far_is_complete(kind: Kind) -> None:
    covered = covers(fill(kind, FULL), FULL * EACH, 0)
    assert (covered.stopped, covered.reached, covered.lost) == (False, True, 0)


@both
def test_what_a_lost_record_reports_is_not_counted_twice(kind: Kind) -> None:
    ring = fill(kind, 9)
    ring.write(EVENT.lost(5, 9))
    unread = abs(ring.head)
    assert covers(ring, unread, 5).lost == 5
    assert not covers(ring, unread, 5).stopped
    assert covers(ring, unread, 7).lost == 7


@both
def test_a_ring_that_its_reader_drains_lacks_nothing_for_what_was_lost_before(kind: Kind) -> None:
    covered = covers(fill(kind, 3 * FULL), 5 * EACH, 1000)
    assert (covered.stopped, covered.reached, covered.lost) == (False, True, 0)


@both
def test_what_was_lost_behind_the_end_of_the_span_does_not_count(kind: Kind) -> None:
    covered = covers(fill(kind, FULL), FULL * EACH, 99, Window(until_ns=FULL // 2))
    assert (covered.stopped, covered.reached, covered.lost) == (False, True, 0)


@both
@given(unread=st.integers(0, FULL), moved=st.integers(0, FULL))
def test_what_was_not_consumed_is_never_cut_off(kind: Kind, unread: int, moved: int) -> None:
    ring = fill(kind, 3 * FULL)
    after = ring.data_head + (-moved if ring.backward else moved) * EACH
    copy = RingCopy(
        0, memoryview(ring.linear()), ring.data_head, after % (1 << 64), kind, SIZE, LONGEST,
        unread * EACH, 0,
    )  # fmt: skip
    _, covered = cut(copy, Window(), clock())
    assert covered.records >= min(unread, SIZE // EACH)
