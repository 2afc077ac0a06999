"""perfkeep.formats.perf_data.mixed: whatever id the kernel put into it, a sample is its event's."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Attr, Flag, Sample, Software, Type
from perfkeep.abi.records import Record
from perfkeep.events import told_apart
from perfkeep.formats.perf_data.event import EventDesc
from perfkeep.formats.perf_data.mixed import mended
from perfkeep.records.sample import Layout

BASE = Sample.IDENTIFIER | Sample.IP | Sample.TID | Sample.TIME | Sample.CPU
FOREIGN = 999
_WORD = struct.Struct("=Q")


def attr(config: Software, more: Sample = Sample(0)) -> Attr:
    return Attr(
        type=Type.SOFTWARE, config=config, sample_period=1, sample_type=BASE | more,
        flags=Flag.SAMPLE_ID_ALL,
    )  # fmt: skip


#: Two kinds that count the same, one that counts something else, a clock.
ATTRS = told_apart(
    [
        attr(Software.CPU_CLOCK),
        attr(Software.PAGE_FAULTS, Sample.CALLCHAIN),
        attr(Software.PAGE_FAULTS),
        attr(Software.CONTEXT_SWITCHES, Sample.CALLCHAIN),
    ]
)
IDS = [10, 20, 30, 40]
EVENTS = [
    EventDesc(str(id), one, {0: [id], 1: [id + 1]}, None)
    for id, one in zip(IDS, ATTRS, strict=True)
]


def sample(which: int, id: int, time: int, cpu: int = 0, deep: int = 2) -> bytes:
    """Of event number `which`, as the kernel writes it that takes it for event `id`."""
    body = struct.pack("=QQIIQII", id, 0x1000, 1, 1, time, cpu, 0)
    if ATTRS[which].sample_type & Sample.CALLCHAIN:
        body += struct.pack(f"={1 + deep}Q", deep, *range(deep))
    words = int(ATTRS[which].sample_type & (Sample.WEIGHT | Sample.DATA_SRC)).bit_count()
    body += bytes(8 * words)
    return struct.pack("=IHH", Record.SAMPLE, 0, 8 + len(body)) + body


def ids_of(data: memoryview | bytearray) -> list[int]:
    found, at = [], 0
    while at < len(data):
        kind, _, size = struct.unpack_from("=IHH", data, at)
        assert kind == Record.SAMPLE
        found.append(_WORD.unpack_from(data, at + 8)[0])
        at += size
    return found


def test_of_each_kind_that_is_counted_in_software_samples_are_longer() -> None:
    plain = attr(Software.PAGE_FAULTS)
    counting = Attr(type=Type.SOFTWARE, config=Software.PAGE_FAULTS)
    found = told_apart([attr(Software.CPU_CLOCK), *[plain] * 5, counting])
    longer = [int(one.sample_type & ~BASE).bit_count() for one in found]
    assert longer == [0, 0, 1, 2, 3, 3, 0]
    (joined,) = told_apart([plain], others=1)
    assert joined.sample_type == BASE | Sample.WEIGHT


@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.tuples(st.just(0), st.just(10)),
                # The kernel mixes only what counts the same, here or elsewhere.
                st.tuples(st.sampled_from([1, 2]), st.sampled_from([20, 30, FOREIGN])),
                st.tuples(st.just(3), st.sampled_from([40, FOREIGN])),
            ),
            st.integers(1, 9),
        )
    )
)
def test_every_sample_is_its_event_s_whoever_s_id_it_has(
    written: list[tuple[tuple[int, int], int]],
) -> None:
    data = b"".join(sample(*which, 1, deep=deep) for which, deep in written)
    found = ids_of(mended(memoryview(data), EVENTS, 0))
    assert found == [IDS[which] for (which, _), _ in written]


def test_what_a_single_kind_wrote_is_its_own_however_long_it_is_said_to_be() -> None:
    event, stale = EVENTS[2], b"old contents of a ring.." * 3
    good = sample(2, FOREIGN, 7)
    data = struct.pack("=IHH", Record.SAMPLE, 0, len(good) + len(stale)) + good[8:] + stale
    found = bytearray(mended(memoryview(data), [EVENTS[0], event], 0))
    assert ids_of(found) == [30]
    assert found[16 : len(good)] == good[16:] and not any(found[len(good) :])


def test_the_id_is_that_of_the_ring_s_cpu() -> None:
    data = sample(1, FOREIGN, 1, cpu=1) + sample(3, FOREIGN, 2, cpu=1)
    assert ids_of(mended(memoryview(data), EVENTS, 1)) == [21, 41]


def test_what_nobody_can_tell_becomes_a_lost_sample() -> None:
    events = [
        EventDesc("a", attr(Software.PAGE_FAULTS), {0: [1]}, None),
        EventDesc("b", attr(Software.CONTEXT_SWITCHES), {0: [2]}, None),
    ]
    good, bad = sample(0, 1, 5), sample(0, FOREIGN, 6)
    found = bytes(mended(memoryview(good + bad + good), events, 0))
    assert found[: len(good)] == good and found[-len(good) :] == good
    kind, _, size, lost = struct.unpack_from("=IHHQ", found, len(good))
    assert (kind, size, lost) == (Record.LOST_SAMPLES, len(bad), 1)
    # As old as what was there before the recording.
    assert Layout(events[0].attr).time(found[len(good) :][:size]) == 0


def test_where_all_is_well_nothing_is_copied() -> None:
    data = memoryview(sample(0, 10, 1) + sample(3, 40, 2))
    assert mended(data, EVENTS, 0) is data
    alone = memoryview(sample(0, FOREIGN, 1))
    assert mended(alone, EVENTS[:1], 0) is alone
