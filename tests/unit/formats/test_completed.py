"""A stock file with persistent events, completed: the real events, and everything else as it was."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_data import HEADER, SECTION, Feature
from perfkeep.abi.perf_event import PERF_TYPE_PERSISTENT, Attr, Type
from perfkeep.errors import DataError
from perfkeep.formats.perf_data import EventDesc, RingCopy, Window, reader, write_snapshot
from perfkeep.formats.perf_data.completed import StockFile, with_identity
from perfkeep.formats.perf_data.reader import PerfData
from perfkeep.formats.perf_data.tracing import parse_tracing_data
from perfkeep.kernel.procfs import Host
from perfkeep.testing.assembler import Assembler, Ring

SWITCH, WAKEUP, CLOCK = Assembler(id=31), Assembler(id=32), Assembler(id=33)


def tracepoint(name: str, id: int) -> tuple[str, str, int, str]:
    text = f"name: {name}\nID: {id}\nformat:\n\tfield:int a;\toffset:8;\tsize:4;\tsigned:1;\n"
    return "sched", name, id, text


REAL = {
    5: EventDesc(
        "sched:switch",
        Attr(type=Type.TRACEPOINT, config=7, sample_period=99),
        {},
        tracepoint("switch", 7),
    ),
    6: EventDesc(
        "mem:0x10:u", Attr(type=Type.BREAKPOINT, bp_type=3, config1=16, config2=8), {}, None
    ),
}


def stock_file(*, ordinary_tracepoint: bool = False) -> bytes:
    """A file with the persistent events 5 and 6, and one that is not."""

    def persistent(id: int, of: Assembler) -> Attr:
        # sample_max_stack lies behind the fields that change: there is room for them.
        recorded = replace(of.attr, sample_max_stack=127)
        return replace(recorded, type=PERF_TYPE_PERSISTENT, config=id, config1=1)

    known = tracepoint("wakeup", 8) if ordinary_tracepoint else None
    type, config = (Type.TRACEPOINT, 8) if known else (Type.SOFTWARE, 1)
    events = [
        EventDesc("persistent/a/", persistent(5, SWITCH), {0: [31]}, None),
        EventDesc("plain", replace(WAKEUP.attr, type=type, config=config), {0: [32]}, known),
        EventDesc("persistent/b/", persistent(6, CLOCK), {0: [33]}, None),
    ]
    ring = Ring(4096)
    for time in range(100, 109):
        ring.write((SWITCH, WAKEUP, CLOCK)[time % 3].sample(time))
    copy = RingCopy(
        0, memoryview(ring.linear()), ring.data_head, ring.data_head, "backward", 4096, 64
    )
    host = Host("here", "6.18.0", "x86_64", 2, 4, "a CPU", "X,1", 1024, 0, b"", [], 5, 6, [])
    out = io.BytesIO()
    write_snapshot(out, events, [copy], host, Window(), ["perf", "record"])
    return out.getvalue()


def completed(data: bytes) -> bytes:
    out = io.BytesIO()
    StockFile(io.BytesIO(data)).write_completed(out, REAL)
    return out.getvalue()


def parsed(data: bytes) -> PerfData:
    return reader.parse(memoryview(data))


def changed(data: bytes, at: int, word: int, format: str = "=Q") -> bytes:
    """The bytes with one number in them set."""
    size = struct.calcsize(format)
    return data[:at] + struct.pack(format, word) + data[at + size :]


def first_ids(data: bytes) -> int:
    """Where the file says where the ids of its first event are."""
    _, _, each, attrs_at, *_ = HEADER.unpack_from(data)
    return int(attrs_at + each - SECTION.size)


WHOLE = stock_file()
MIXED = stock_file(ordinary_tracepoint=True)


def test_persistent_events_are_found_in_the_order_of_the_file() -> None:
    assert StockFile(io.BytesIO(WHOLE)).persistent == [5, 6]


def test_attrs_get_the_real_identity_and_keep_how_they_are_recorded() -> None:
    before, after = parsed(WHOLE), parsed(completed(WHOLE))
    switch, plain, memory = (event.attr for event in after.events)
    was = [event.attr for event in before.events]
    assert switch == replace(was[0], type=Type.TRACEPOINT, config=7, config1=0)
    assert plain == was[1]
    assert memory == replace(
        was[2], type=Type.BREAKPOINT, config=0, bp_type=3, config1=16, config2=8
    )


def test_names_are_those_of_the_real_events_in_the_description_as_well() -> None:
    got = parsed(completed(WHOLE))
    assert [event.name for event in got.events] == ["sched:switch", "plain", "mem:0x10:u"]
    desc = got.features[Feature.EVENT_DESC]
    (size,) = struct.unpack_from("=I", desc, 4)
    assert Attr.unpack(bytes(desc[8 : 8 + size])) == got.events[0].attr


def test_the_formats_of_tracepoints_are_added() -> None:
    assert Feature.TRACING_DATA not in parsed(WHOLE).features
    switch, _, memory = parsed(completed(WHOLE)).events
    assert switch.tracepoint == tracepoint("switch", 7) and memory.tracepoint is None


def test_the_formats_that_a_file_has_stay_and_others_come_behind_them() -> None:
    got = parsed(completed(MIXED))
    tracing = got.features[Feature.TRACING_DATA]
    assert parse_tracing_data(tracing) == [tracepoint("wakeup", 8), tracepoint("switch", 7)]
    assert [event.tracepoint for event in got.events[:2]] == [
        tracepoint("switch", 7),
        tracepoint("wakeup", 8),
    ]
    # What follows the formats is still there: kallsyms, printk formats, command lines.
    assert bytes(tracing[-16:]) == bytes(16)


def test_a_format_that_a_file_has_already_is_not_added_again() -> None:
    real = {**REAL, 5: replace(REAL[5], tracepoint=tracepoint("wakeup", 8))}
    out = io.BytesIO()
    StockFile(io.BytesIO(MIXED)).write_completed(out, real)
    tracing = parsed(out.getvalue()).features[Feature.TRACING_DATA]
    assert parse_tracing_data(tracing) == [tracepoint("wakeup", 8)]


@pytest.mark.parametrize("data", [WHOLE, MIXED], ids=["alone", "with ordinary tracepoints"])
def test_records_ids_and_other_features_stay_as_they_were(data: bytes) -> None:
    before, after = parsed(data), parsed(completed(data))
    assert (after.data_at, bytes(after.data)) == (before.data_at, bytes(before.data))
    assert [event.ids for event in after.events] == [event.ids for event in before.events]
    new = {Feature.EVENT_DESC, Feature.TRACING_DATA}
    assert set(after.features) == set(before.features) | new
    for number in before.features.keys() - new:
        assert bytes(after.features[number]) == bytes(before.features[number]), number


def test_features_fill_the_file_behind_the_data_in_the_order_of_their_numbers() -> None:
    data = completed(WHOLE)
    _, _, _, _, _, data_at, data_size, _, _, bitmap = HEADER.unpack_from(data)
    at = data_at + data_size
    count = int.from_bytes(bitmap, "little").bit_count()
    end = at + SECTION.size * count
    for place in range(count):
        offset, size = SECTION.unpack_from(data, at + SECTION.size * place)
        assert offset == end
        end = offset + size
    assert end == len(data)


def test_a_completed_file_has_no_persistent_event_left() -> None:
    assert StockFile(io.BytesIO(completed(WHOLE))).persistent == []


def test_an_attr_of_the_first_size_gets_what_it_has_room_for() -> None:
    short = struct.pack("=II", PERF_TYPE_PERSISTENT, 64) + bytes(56)
    real = REAL[6].attr
    assert with_identity(short, real) == changed(real.pack()[:64], 4, 64, "=I")
    long = Attr(type=PERF_TYPE_PERSISTENT).pack()
    assert Attr.unpack(with_identity(long, replace(real, config3=9))) == replace(real, config3=9)


def test_progress_is_told_up_to_the_end() -> None:
    told: list[tuple[int, int]] = []
    StockFile(io.BytesIO(WHOLE)).write_completed(
        io.BytesIO(), REAL, lambda done, all: told.append((done, all))
    )
    size = len(parsed(WHOLE).data)
    assert told == [(size, size)]


def test_it_is_written_from_front_to_back() -> None:
    class Pipe(io.BytesIO):
        def seek(self, *_: object) -> int:
            raise io.UnsupportedOperation("a pipe cannot seek")

    out = Pipe()
    StockFile(io.BytesIO(WHOLE)).write_completed(out, REAL)
    assert out.getvalue() == completed(WHOLE)


# --- what is refused --------------------------------------------------------------------------


def test_a_file_of_a_pipe_or_of_the_other_byte_order_is_not_understood() -> None:
    with pytest.raises(DataError, match="written to a pipe"):
        StockFile(io.BytesIO(changed(WHOLE, 8, 16)[:16]))
    with pytest.raises(DataError, match="other byte order"):
        StockFile(io.BytesIO(b"2ELIFREP" + WHOLE[8:]))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no perf.data"),
        (b"PERFILE1" + WHOLE[8:], "no perf.data"),
        (WHOLE[:50], "header should have 104 bytes"),
        (changed(WHOLE, 8, 96), "header should have 104 bytes, says 96"),
        (changed(WHOLE, 48, 0), "was not finished"),
        (WHOLE[: parsed(WHOLE).data_at + 9], "the data should lie at"),
        (WHOLE[:-1], "feature 21 should lie at"),
        (changed(WHOLE, 16, 79), "make no sense"),
        (changed(WHOLE, 24, 8), "its attrs begin at 8"),
        (changed(WHOLE, 24, 1 << 40), "the attrs should lie at"),
        (changed(WHOLE, first_ids(WHOLE), len(WHOLE)), "the ids of an event should lie at"),
    ],
    ids=range(11),
)
def test_a_broken_file_is_told_where(data: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        StockFile(io.BytesIO(data))


def test_features_that_overlap_are_refused() -> None:
    end = parsed(WHOLE).data_at + len(parsed(WHOLE).data)
    with pytest.raises(DataError, match="overlap"):
        StockFile(io.BytesIO(changed(changed(WHOLE, end, end), end + 8, len(WHOLE) - end)))


def test_a_broken_description_is_found_before_anything_is_written() -> None:
    place, out = parsed(WHOLE).features[Feature.EVENT_DESC], io.BytesIO()
    at = WHOLE.index(bytes(place))
    for broken in (changed(WHOLE, at, 99, "=I"), changed(WHOLE, at + 4, 8, "=I")):
        with pytest.raises(DataError, match="does not fit"):
            StockFile(io.BytesIO(broken)).write_completed(out, REAL)
    assert out.getvalue() == b""


def test_a_file_that_gets_shorter_while_it_is_read_is_refused() -> None:
    source = io.BytesIO(WHOLE)
    file = StockFile(source)
    source.truncate(len(WHOLE) - 1)
    with pytest.raises(DataError, match="while it was read"):
        file.write_completed(io.BytesIO(), REAL)


def _try(data: bytes) -> None:
    """It is completed, or refused in words."""
    try:
        file = StockFile(io.BytesIO(data))
        real = {id: REAL[5 + place % 2] for place, id in enumerate(file.persistent)}
        out = io.BytesIO()
        file.write_completed(out, real)
    except DataError as error:
        assert str(error)
    else:
        assert not StockFile(io.BytesIO(out.getvalue())).persistent
        assert len(out.getvalue()) < len(data) + 4096


@given(st.binary(max_size=300))
def test_any_bytes_are_completed_or_refused(data: bytes) -> None:
    _try(data)
    _try(WHOLE[:8] + data)


@given(st.sampled_from([WHOLE, MIXED]), st.integers(0, len(WHOLE)))
def test_a_truncated_file_is_refused(data: bytes, length: int) -> None:
    if length == len(data):
        return
    with pytest.raises(DataError):
        StockFile(io.BytesIO(data[:length]))


@given(
    st.sampled_from([WHOLE, MIXED]),
    st.lists(
        st.tuples(
            st.one_of(st.integers(0, 103), st.integers(0, len(WHOLE) - 1)), st.integers(0, 255)
        ),
        min_size=1,
        max_size=9,
    ),
)
def test_a_corrupted_file_is_completed_or_refused(
    data: bytes, changes: list[tuple[int, int]]
) -> None:
    made = bytearray(data)
    for at, byte in changes:
        made[at] = byte
    _try(bytes(made))
