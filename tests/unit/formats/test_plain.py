"""perfkeep.formats.perf_data.plain: what was read is written so that it is read the same."""

from __future__ import annotations

import io
import os
import struct

from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_data import HEADER, MAGIC, Feature
from perfkeep.abi.perf_event import Attr
from perfkeep.formats.perf_data.event import EventDesc
from perfkeep.formats.perf_data.plain import write_plain
from perfkeep.formats.perf_data.reader import PerfData, parse
from perfkeep.testing.assembler import Assembler

EVENT = Assembler()
SAMPLES = b"".join(EVENT.sample(time) for time in range(5))


def again(file: PerfData) -> PerfData:
    out = io.BytesIO()
    write_plain(out, file)
    return parse(memoryview(out.getvalue()))


def test_what_tells_of_compressed_and_aux_data_is_left_out() -> None:
    features: dict[Feature | int, memoryview] = {
        Feature.COMPRESSED: memoryview(bytes(20)),
        Feature.AUXTRACE: memoryview(bytes(8)),
        Feature.OSRELEASE: memoryview(struct.pack("=I", 8) + b"6.18\0\0\0\0"),
    }
    made = again(
        PerfData([EventDesc("x", EVENT.attr, {0: [7]}, None)], memoryview(SAMPLES), 0, features)
    )
    assert set(made.features) == {Feature.OSRELEASE, Feature.EVENT_DESC}
    assert made.text(Feature.OSRELEASE) == "6.18" and bytes(made.data) == SAMPLES


def test_it_is_written_from_front_to_back_with_the_header_that_perf_expects() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe:
        with open(writing, "wb") as out:
            write_plain(out, PerfData([], memoryview(SAMPLES), 0, {}))
        taken = pipe.read()
    magic, size, *_ = HEADER.unpack_from(taken)
    assert (magic, size) == (MAGIC, HEADER.size) and SAMPLES in taken


events = st.lists(
    st.builds(
        EventDesc,
        st.text(
            st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
            min_size=1,
            max_size=30,
        ),
        st.builds(
            Attr,
            type=st.integers(0, 9),
            config=st.integers(0, 2**64 - 1),
            config3=st.sampled_from([0, 5]),
        ),
        st.builds(lambda ids: {-1: ids}, st.lists(st.integers(0, 2**64 - 1), max_size=4)),
        st.none(),
    ),
    max_size=4,
)


@given(events)
def test_events_keep_their_names_ids_and_attrs(some: list[EventDesc]) -> None:
    made = again(PerfData(some, memoryview(SAMPLES), 0, {}))
    assert [(one.name, one.attr, one.all_ids) for one in made.events] == [
        (one.name, one.attr, one.all_ids) for one in some
    ]
    assert bytes(made.data) == SAMPLES
