"""perf.data: what was written is read, and any bytes are read or refused."""

from __future__ import annotations

import errno
import io
import mmap
import struct
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_data import Feature
from perfkeep.abi.perf_event import Attr, ClockId, Flag, Type
from perfkeep.abi.records import Record
from perfkeep.errors import DataError
from perfkeep.formats import perf_data
from perfkeep.formats.perf_data import EventDesc, RingCopy, Window, reader, write_snapshot
from perfkeep.formats.perf_data.event import attr_size, pack_attr
from perfkeep.formats.perf_data.features import build_ids
from perfkeep.formats.perf_data.tracing import parse_tracing_data
from perfkeep.kernel.procfs import Host, Mapping, Module, Process
from perfkeep.testing.assembler import Assembler, Ring

EVENTS = [Assembler(id=3), Assembler(id=4, cpu=1)]
FORMAT = "name: switch\nID: 1\nformat:\n\tfield:int a;\toffset:8;\tsize:4;\tsigned:1;\n"


def host() -> Host:
    return Host(
        hostname="here",
        release="6.18.0",
        machine="x86_64",
        cpus_online=2,
        cpus_possible=4,
        cpu_description="a CPU",
        cpu_id="X,1,2,3",
        memory_kib=1024,
        kernel_text=0xFFFFFFFF81000000,
        kernel_notes=b"",
        modules=[Module("ext4", 0xFFFFFFFFC0000000, 4096)],
        monotonic_ns=5,
        realtime_ns=10**18,
        processes=[
            Process(17, {17: b"main", 18: b"worker"}, [Mapping(4096, 8192, 0, 8, 1, 99, 5, False, b"/bin/x")])
        ],
    )  # fmt: skip


def descs() -> list[EventDesc]:
    switch = replace(EVENTS[1].attr, type=Type.TRACEPOINT, config=1)
    return [
        EventDesc("cpu-clock", EVENTS[0].attr, {0: [3]}, None),
        EventDesc("sched:switch", switch, {1: [4]}, ("sched", "switch", 1, FORMAT)),
    ]


def rings() -> list[RingCopy]:
    found = []
    for event in EVENTS:
        ring = Ring(4096)
        for time in range(100, 110):
            ring.write(event.sample(time))
        data = memoryview(ring.linear())
        head = ring.data_head
        found.append(RingCopy(event.cpu, data, head, head, "backward", 4096, 64))
    return found


def whole_file() -> bytes:
    out = io.BytesIO()
    write_snapshot(out, descs(), rings(), host(), Window(), ["perfkeep", "snapshot", "x"])
    return out.getvalue()


def test_events_ids_and_records_come_back_as_they_were_written() -> None:
    got = reader.parse(memoryview(whole_file()))
    assert [(e.name, e.all_ids) for e in got.events] == [("cpu-clock", [3]), ("sched:switch", [4])]
    assert [e.attr for e in got.events] == [e.attr for e in descs()]
    kinds = [kind for kind, _ in got.records()]
    assert kinds.count(Record.SAMPLE) == 20
    assert kinds[:5] == [Record.MMAP, Record.MMAP, Record.COMM, Record.COMM, Record.MMAP2]


def test_the_file_says_where_and_by_whom_it_was_made() -> None:
    got = reader.parse(memoryview(whole_file()))
    assert got.text(Feature.HOSTNAME) == "here"
    assert got.text(Feature.OSRELEASE) == "6.18.0"
    assert got.text(Feature.CPUDESC) == "a CPU"
    assert got.command == ["perfkeep", "snapshot", "x"]
    assert got.sample_time == (100, 109)
    tracing = got.features[Feature.TRACING_DATA]
    assert bytes(tracing[:10]) == b"\x17\x08\x44tracing" and FORMAT.encode() in bytes(tracing)


def test_tracepoints_come_back_with_the_layout_of_their_fields() -> None:
    clock, switch = reader.parse(memoryview(whole_file())).events
    assert clock.tracepoint is None
    assert switch.tracepoint == ("sched", "switch", 1, FORMAT)


@pytest.mark.parametrize("clock", [None, ClockId.BOOTTIME, ClockId.MONOTONIC])
def test_the_clocks_are_related_only_where_records_tell_monotonic_time(
    clock: ClockId | None,
) -> None:
    attr = replace(EVENTS[0].attr, clockid=clock or 0)
    if clock is not None:
        attr = attr.with_flags(Flag.USE_CLOCKID)
    out = io.BytesIO()
    write_snapshot(out, [EventDesc("e", attr, {0: [3]}, None)], [], host(), Window(), [])
    features = reader.parse(memoryview(out.getvalue())).features
    told = {Feature.CLOCKID, Feature.CLOCK_DATA} <= features.keys()
    assert told == (clock == ClockId.MONOTONIC)


def test_a_full_disk_leaves_no_view_of_a_ring_behind() -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            if isinstance(data, memoryview):
                raise OSError(errno.ENOSPC, "full")
            return super().write(data)  # type: ignore[arg-type]

    ring = rings()[0]
    with mmap.mmap(-1, len(ring.data)) as memory:
        memory[:] = bytes(ring.data)
        with memoryview(memory) as data, pytest.raises(OSError, match="full"):
            write_snapshot(Full(), descs(), [replace(ring, data=data)], host(), Window(), [])
        # Leaving the block unmaps: a view that somebody still holds would be a BufferError.


def test_what_has_replaced_a_mapped_file_gives_no_build_id(tmp_path: Path) -> None:
    path = tmp_path / "lib.so"
    note = struct.pack("=III", 4, 20, 3) + b"GNU\0" + bytes(range(20))
    header = b"\x7fELF" + bytes([2, 1 if sys.byteorder == "little" else 2, 1]) + bytes(9)
    header += struct.pack("=HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    path.write_bytes(header + struct.pack("=IIQQQQQQ", 4, 4, 120, 0, 0, 36, 36, 4) + note)

    def ids(inode: int) -> bytes:
        there = host()
        mapping = Mapping(4096, 8192, 0, 8, 1, inode, 5, False, bytes(path))
        there.processes = [Process(2**31 - 1, {}, [mapping])]
        return build_ids(there, {})

    assert bytes(range(20)) in ids(path.stat().st_ino) and bytes(path) in ids(path.stat().st_ino)
    assert ids(path.stat().st_ino + 1) == b""


def test_hidden_kernel_addresses_leave_the_kernel_out() -> None:
    hidden, out = host(), io.BytesIO()
    hidden.kernel_text = 0
    write_snapshot(out, descs(), rings(), hidden, Window(), [])
    kinds = [kind for kind, _ in reader.parse(memoryview(out.getvalue())).records()]
    assert Record.MMAP not in kinds


@pytest.mark.parametrize(
    ("attr", "size"),
    [(Attr(), 64), (Attr(config2=1), 72), (Attr(clockid=1), 96), (Attr(sig_data=1), 128),
     (Attr(config3=1), 136)],
)  # fmt: skip
def test_an_attr_is_no_longer_than_its_fields_need(attr: Attr, size: int) -> None:
    # Stock perf refuses an attr that is longer than it knows, even if the rest is zero.
    assert attr_size([attr]) == size
    packed = pack_attr(attr, size)
    assert len(packed) == size and Attr.unpack(packed) == attr


def test_a_file_of_another_kind_is_refused_with_the_reason() -> None:
    with pytest.raises(DataError, match=r"no perf\.data"):
        reader.parse(memoryview(b"\x7fELF" + bytes(200)))
    with pytest.raises(DataError, match="other byte order"):
        reader.parse(memoryview(b"2ELIFREP" + bytes(200)))
    with pytest.raises(DataError, match="a header of 99 bytes is not known"):
        reader.parse(memoryview(b"PERFILE2" + (99).to_bytes(8, "little") + bytes(200)))
    with pytest.raises(DataError, match="the header should have"):
        reader.parse(memoryview(b"PERFILE2" + (104).to_bytes(8, "little") + bytes(4)))


def test_read_opens_a_file_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "x.data").write_bytes(whole_file())
    assert len(perf_data.read(str(tmp_path / "x.data")).events) == 2


WHOLE = whole_file()


def _try(data: bytes) -> None:
    """Everything the reader offers; only DataError may come of it."""
    try:
        got = reader.parse(memoryview(data))
        for _ in got.records():
            pass
        _ = got.command, got.sample_time, got.text(Feature.HOSTNAME)
    except DataError as error:
        assert error.offset >= 0


@given(st.integers(0, len(WHOLE)))
def test_a_truncated_file_is_read_or_refused(length: int) -> None:
    _try(WHOLE[:length])
    assert len(WHOLE) > 104


@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=9)
)
def test_a_corrupted_file_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for at, byte in changes:
        data[at] = byte
    _try(bytes(data))
    assert len(data) == len(WHOLE)


@given(st.lists(st.tuples(st.integers(0, 103), st.integers(0, 255)), min_size=1, max_size=20))
def test_a_corrupted_header_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for at, byte in changes:
        data[at] = byte
    _try(bytes(data))
    assert len(data) == len(WHOLE)


@given(st.binary(max_size=200), st.integers(0, 400))
def test_any_tracing_data_is_read_or_refused(rest: bytes, keep: int) -> None:
    whole = bytes(reader.parse(memoryview(WHOLE)).features[Feature.TRACING_DATA])
    data = whole[:-keep] + rest if keep else whole + rest
    try:
        found = parse_tracing_data(memoryview(data))
    except DataError as error:
        assert 0 <= error.offset <= len(data)
    else:
        # Where a text is cut, a character may be.
        whole_text = data.decode(errors="replace")
        assert all(text.strip("\ufffd") in whole_text for *_, text in found)
