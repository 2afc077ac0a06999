"""perfkeep.redactor.redact: no address of the kernel's is left, and little else is touched."""

from __future__ import annotations

import struct
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep import records
from perfkeep.abi.perf_event import Attr, Flag, ReadFormat, Sample, Software, Type
from perfkeep.abi.records import Record
from perfkeep.records.sample import Layout
from perfkeep.redactor.fields import BEYOND, LOWEST, Shape, is_address
from perfkeep.redactor.redact import Source, redact
from perfkeep.testing.assembler import PLAIN, Assembler, Ring, record

KERNEL = st.integers(LOWEST, BEYOND - 1).filter(is_address)
USER = st.integers(0, 2**47)
MARKS = st.integers(BEYOND, 2**64 - 1)
ADDRESS = KERNEL | USER | MARKS
FORMAT = """
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;
	field:void * where;	offset:8;	size:8;	signed:0;
	field:char comm[16];	offset:16;	size:16;	signed:0;
	field:unsigned long chain[2];	offset:32;	size:16;	signed:0;
"""
SOME = PLAIN | Sample.IP | Sample.ADDR | Sample.CALLCHAIN | Sample.RAW


def looks_like_kernel(data: bytes | bytearray, at: int) -> bool:
    (value,) = struct.unpack_from("=Q", data, at)
    return is_address(int(value))


@st.composite
def samples(draw: st.DrawFn) -> tuple[bytes, list[int], bytes]:
    """A sample of the tracepoint, its call chain, and its raw bytes."""
    chain = draw(st.lists(ADDRESS, max_size=6))
    raw = struct.pack("=HHiQ16sQQ", 9, 0, 17, draw(ADDRESS), b"comm\xff\xff\xff\xff\xff\xff",
                      draw(ADDRESS), draw(ADDRESS))  # fmt: skip
    data = Assembler(sample_type=SOME).sample(
        draw(st.integers(1, 2**50)), ip=draw(ADDRESS), addr=draw(ADDRESS), callchain=chain, raw=raw
    )
    return data, chain, raw


def source(format: str = FORMAT) -> Source:
    return Source(Assembler(sample_type=SOME).attr.pack(), [7], format)


def hidden(address: int) -> int:
    return 0 if is_address(address) else address


@given(st.lists(samples(), min_size=1, max_size=5))
def test_every_address_of_the_kernel_is_0_and_everything_else_as_it_was(
    some: list[tuple[bytes, list[int], bytes]],
) -> None:
    before = b"".join(data for data, _, _ in some)
    after = bytearray(before)
    assert redact(after, True, [source()]) == 0
    assert len(after) == len(before)
    layout, at = Layout(Assembler(sample_type=SOME).attr), 0
    for data, chain, raw in some:
        old, new = layout.decode(data), layout.decode(bytes(after[at : at + len(data)]))
        assert new.callchain == tuple(map(hidden, chain))
        assert old.ip is not None and new.ip == hidden(old.ip)
        assert old.addr is not None and new.addr == hidden(old.addr)
        for field in ("id", "pid", "tid", "time", "cpu", "period"):
            assert getattr(new, field) == getattr(old, field)
        assert new.raw[:8] == raw[:8] and new.raw[16:32] == raw[16:32]
        for place in (8, 32, 40):
            assert not looks_like_kernel(new.raw, place)
            if not looks_like_kernel(raw, place):
                assert new.raw[place : place + 8] == raw[place : place + 8]
        at += len(data)


@given(st.integers(0, 1 << 22), st.integers(0, 1 << 22))
def test_a_pid_beside_a_tid_of_minus_one_stays_and_what_looks_like_it_elsewhere_goes(
    pid: int, low: int
) -> None:
    # As in a frame that is no frame: two numbers on a user's stack, 1 and -1.
    alike = 0xFFFFFFFF << 32 | low
    layout = Assembler(sample_type=SOME)
    one = layout.sample(5, pid=pid, tid=0xFFFFFFFF, ip=alike, addr=alike, callchain=[7, alike])
    data = bytearray(one)
    assert redact(data, True, [source("")]) == 0
    (task,) = struct.unpack_from("=Q", one, 24)
    assert task == 0xFFFFFFFF << 32 | pid
    found = Layout(layout.attr).decode(bytes(data))
    assert (found.pid, found.tid) == (pid, 0xFFFFFFFF)
    assert (found.ip, found.addr, found.callchain) == (0, 0, (7, 0))


@given(samples(), st.integers(0, 7))
def test_without_a_format_no_byte_of_raw_begins_an_address(
    one: tuple[bytes, list[int], bytes], shift: int
) -> None:
    raw = b"\x01" * shift + one[2]
    data = bytearray(Assembler(sample_type=SOME).sample(5, raw=raw))
    redact(data, True, [source("")])
    span = Layout(Assembler(sample_type=SOME).attr).raw_span(bytes(data))
    assert span is not None
    assert not any(looks_like_kernel(data, at) for at in range(span[0], span[1] - 7))


@given(st.binary(max_size=400), KERNEL)
def test_a_record_of_an_unknown_event_has_no_address_anywhere(body: bytes, address: int) -> None:
    data = bytearray(
        record(Record.SAMPLE, struct.pack("=Q", 99) + body + struct.pack("=Q", address))
    )
    redact(data, True, [source()])
    assert not any(looks_like_kernel(data, at) for at in range(8, len(data) - 7))


def test_of_other_records_the_addresses_go_and_of_changed_code_all_of_it() -> None:
    symbol = record(Record.KSYMBOL, struct.pack("=QIHH8s", 0xFFFFFFFFC0000000, 64, 1, 0, b"bpf"))
    poke = record(Record.TEXT_POKE, struct.pack("=QHH", 0xFFFFFFFF81000000, 5, 5) + b"\x0f" * 12)
    mmap = record(Record.MMAP, struct.pack("=IIQQQ8s", 1, 1, 0xFFFFFFFF81000000, 4096, 0, b"k"))
    data = bytearray(symbol + poke + mmap)
    assert redact(data, True, [source()]) == 0
    assert not any(looks_like_kernel(data, at) for at in range(0, len(data), 8))
    assert b"\x0f" not in data
    assert b"bpf" in data


@st.composite
def anything(draw: st.DrawFn) -> bytes:
    """Chains of records of any type and any content, some of them broken."""
    data = b""
    for _ in range(draw(st.integers(0, 5))):
        words = draw(st.lists(ADDRESS | st.just(7) | st.integers(0, 9), max_size=12))
        body = struct.pack(f"={len(words)}Q", *words) + draw(st.binary(max_size=40))
        data += record(draw(st.sampled_from([9, 9, *range(1, 30)])), body, draw(st.integers(0, 9)))
    return data + draw(st.binary(max_size=30))


#: Of the bits of an attr, those that any word of which may be an address have.
KINDS = st.integers(0, (1 << 26) - 1).map(Sample)


@given(anything(), st.booleans(), KINDS, st.sampled_from([FORMAT, ""]), st.integers(-500, 500))
def test_any_bytes_at_all_are_survived_and_nothing_of_the_kernels_is_left(
    data: bytes, backward: bool, kinds: Sample, format: str, overwritten: int
) -> None:
    after = bytearray(data)
    attr = Attr(
        type=1, sample_type=kinds & ~Sample.READ, flags=Flag.SAMPLE_ID_ALL, branch_sample_type=-1 % 2**64
    )  # fmt: skip
    zeroed = redact(after, backward, [Source(attr.pack(), [7], format)], overwritten)
    assert len(after) == len(data) and 0 <= zeroed <= len(data)
    for at in range(0, len(after) // 8 * 8, 8):
        # Counts, inodes and tags are numbers; a longest header is one, too.
        assert not looks_like_kernel(after, at) or in_fields(after, at)


def in_fields(data: bytearray, at: int) -> bool:
    """Whether this word is of a record in which it stays, or of small fields of RAW."""
    for start in records.walk(memoryview(data), 0, len(data), 1).marks:
        kind, _, size = struct.unpack_from("=IHH", data, start)
        if start <= at < start + size:
            return kind in (Record.READ, Record.MMAP2, Record.BPF_EVENT, Record.SAMPLE)
    return False


@given(st.binary(max_size=2000), st.booleans())
def test_of_samples_without_raw_no_word_is_left_whatever_they_hold(
    body: bytes, backward: bool
) -> None:
    kinds = PLAIN | Sample.CALLCHAIN | Sample.REGS_INTR | Sample.STACK_USER
    data = bytearray(record(Record.SAMPLE, struct.pack("=Q", 7) + body))
    redact(data, backward, [Source(Assembler(sample_type=kinds).attr.pack(), [7], "")])
    assert not any(looks_like_kernel(data, at) for at in range(8, len(data) - 7, 8))


@given(st.lists(samples(), min_size=1, max_size=4), st.binary(min_size=1, max_size=40))
def test_what_is_no_chain_of_records_is_0(
    some: list[tuple[bytes, list[int], bytes]], torn: bytes
) -> None:
    whole = b"".join(data for data, _, _ in some)
    broken = b"\0" * 8 + torn  # a header of type 0 ends every chain
    data = bytearray(whole + broken)
    assert redact(data, True, [source()]) == len(broken)
    assert data[len(whole) :] == bytes(len(broken))


def torn(size: int, moved: int) -> tuple[bytearray, bytes]:
    """A copy of a backward ring into which was written meanwhile, and what it was before: records
    with small fields only, then overwritten by ones with addresses.
    """
    quiet, loud = Assembler(sample_type=PLAIN | Sample.RAW), Assembler(
        id=8, sample_type=PLAIN | Sample.CALLCHAIN
    )  # fmt: skip
    ring = Ring(size)
    for at in range(size // 64 + 1):
        ring.write(quiet.sample(at, raw=struct.pack("=8x16s", b"x" * 16)))
    head, before = ring.head, ring.linear()
    while head - ring.head < moved:
        ring.write(loud.sample(9, callchain=[0xFFFFFFFF81000001] * 4))
    at = head % size
    return bytearray(ring.area[at:] + ring.area[:at]), before


QUIET = """
	field:int common_pid;	offset:4;	size:4;	signed:1;
	field:char comm[16];	offset:8;	size:16;	signed:0;
"""


def sources() -> list[Source]:
    attrs = (
        Assembler(sample_type=PLAIN | Sample.RAW),
        Assembler(sample_type=PLAIN | Sample.CALLCHAIN),
    )
    return [Source(attrs[0].attr.pack(), [7], QUIET), Source(attrs[1].attr.pack(), [8], "")]


@pytest.mark.parametrize("moved", [8, 80, 800])
def test_what_was_overwritten_meanwhile_is_0_and_the_rest_is_not_touched(moved: int) -> None:
    data, before = torn(16384, moved)
    assert redact(data, True, sources(), moved, frames=9) == 0
    assert not any(looks_like_kernel(data, at) for at in range(0, len(data) - 7, 4))
    # What readers cut off, and the record that is cut in two by it.
    spoilt = moved + 4 * (256 + 8 * 9 + 0)
    whole = (len(data) - spoilt) // 72 * 72
    assert data[:whole] == before[:whole]
    assert not any(data[whole:])


def test_samples_without_an_id_are_known_when_there_is_one_kind_of_event() -> None:
    event = Assembler(sample_type=Sample.IP | Sample.TID | Sample.TIME | Sample.PERIOD)
    layout, only = Layout(event.attr), [Source(event.attr.pack(), [7], "")]
    some = [event.sample(10**15 + at, pid=at, ip=0xFFFFFFFF81000000) for at in range(600)]
    ring = Ring(16384, backward=False)
    for one in some:
        ring.write(one)
    for data, backward, overwritten in (
        (bytearray(b"".join(some)), True, None),
        (bytearray(ring.linear()), False, 0),
    ):
        before, end = bytes(data), len(data)
        redact(data, backward, only, overwritten)
        start = records.first_chained(before, 2000, b"") if overwritten == 0 else 0
        for at in range(start, end, len(some[0])):
            old, new = layout.decode(before[at:][:40]), layout.decode(bytes(data[at:][:40]))
            assert (new.time, new.pid, new.tid, new.ip) == (old.time, old.pid, old.tid, 0)


def test_a_pid_beside_the_tid_of_a_dead_thread_stays() -> None:
    made = Assembler()
    data = made.sample(5, pid=77, tid=0xFFFFFFFF)
    after = bytearray(data)
    assert redact(after, True, [Source(made.attr.pack(), [made.id], "")]) == 0 and after == data


@given(st.binary(max_size=20), KERNEL, st.lists(ADDRESS, max_size=3))
def test_what_lies_behind_a_sample_that_the_kernel_said_to_be_longer_has_no_address(
    before: bytes, address: int, chain: list[int]
) -> None:
    # Of what is counted in software; see formats.perf_data.mixed.
    kinds = PLAIN | Sample.IP | (Sample.CALLCHAIN if chain else Sample(0))
    event = Assembler(sample_type=kinds)
    faults = replace(event.attr, config=Software.PAGE_FAULTS)
    good = event.sample(5, ip=0x1000, callchain=chain)
    stale = before + struct.pack("=Q", address)
    stale += bytes(-len(stale) % 8)
    data = bytearray(struct.pack("=IHH", Record.SAMPLE, 0, len(good) + len(stale)) + good[8:])
    data += stale
    redact(data, True, [Source(faults.pack(), [7], "")])
    assert not any(looks_like_kernel(data, at) for at in range(len(good), len(data) - 7))
    assert data[8 : 8 + 8 * 5] == good[8 : 8 + 8 * 5]


def test_counts_stay_whatever_they_are() -> None:
    attr = Attr(sample_type=Sample.IDENTIFIER | Sample.READ, read_format=ReadFormat.ID)
    body = struct.pack("=QQQ", 7, 0xFFFFFFF000000000, 7)
    data = record(Record.SAMPLE, body)
    after = bytearray(data)
    assert redact(after, True, [Source(attr.pack(), [7], "")]) == 0 and after == data


def test_of_a_copy_of_a_stack_nothing_is_left_and_it_says_that_it_is_empty() -> None:
    attr = Attr(
        sample_type=Sample.IDENTIFIER | Sample.STACK_USER | Sample.PHYS_ADDR, sample_stack_user=32
    )
    stack = struct.pack("=QQIQI", 1, 2, 0xFFFF8881, 0xFFFFFFFF81000000, 0x81000000)
    data = bytearray(record(Record.SAMPLE, struct.pack("=QQ32sQQ", 7, 32, stack, 16, 0x12345000)))
    assert redact(data, True, [Source(attr.pack(), [7], "")]) == 0
    assert struct.unpack_from("=QQQQQQQQ", data, 8) == (7, 32, 0, 0, 0, 0, 0, 0)


def test_between_and_behind_the_fields_of_a_tracepoint_nothing_is_left() -> None:
    format = """
	field:int common_pid;	offset:4;	size:4;	signed:1;
	field:int nr;	offset:8;	size:4;	signed:1;
	field:long ret;	offset:16;	size:8;	signed:1;
	field:char name[16];	offset:24;	size:16;	signed:0;
	field:u8 data[12];	offset:40;	size:12;	signed:0;
"""
    stale = 0xFFFFFFFF81234567
    raw = struct.pack("=IiiIq4sIQ4xQ", 1, 2, 3, 0xFFFF8881, -11, b"ab\0c", 7, stale, stale)
    event = Assembler(sample_type=PLAIN | Sample.RAW)
    data = bytearray(event.sample(5, raw=raw))
    assert redact(data, True, [Source(event.attr.pack(), [7], format)]) == 0
    found = Layout(event.attr).decode(bytes(data)).raw
    # An errno is no address, and keeps what stands before it from being taken for half of one.
    assert struct.unpack_from("=IiiIq16s12s", found) == (
        0, 2, 3, 0, -11, b"ab".ljust(16, b"\0"), bytes(12)
    )  # fmt: skip


def test_what_a_bpf_program_left_unwritten_at_the_end_of_raw_is_0() -> None:
    event = Assembler(sample_type=PLAIN | Sample.RAW)
    for kind, rest in ((Type.SOFTWARE, b"\0" * 7), (Type.TRACEPOINT, b"\x11" * 7)):
        attr = Attr(type=kind, sample_type=event.sample_type)
        data = bytearray(event.sample(5, raw=b"\x11" * 20))
        redact(data, True, [Source(attr.pack(), [7], "")])
        assert bytes(data[-7:]) == rest


@pytest.mark.parametrize(
    "format",
    ["field:" * 20_000, "field:a;" * 16_000, "field:a;" + " " * 130_000, "field:a; offset:" * 8000],
    ids=["no end", "no offset", "spaces", "no number"],
)
def test_no_format_takes_long(format: str) -> None:
    before = time.process_time()
    Shape(Attr(), format)
    assert time.process_time() - before < 2


@pytest.mark.parametrize("fill", [b"\xff", b"\xff\0", b"\xff" + bytes(7)], ids=bytes.hex)
def test_no_content_takes_long(fill: bytes) -> None:
    event = Assembler(sample_type=PLAIN | Sample.RAW)
    data = bytearray(event.sample(1, raw=(fill * 60000)[:60000]) * 18)
    before = time.process_time()
    redact(data, True, [Source(event.attr.pack(), [7], "")])
    assert time.process_time() - before < 2


def test_of_a_type_that_is_not_known_only_its_time_and_its_id_stay() -> None:
    body = struct.pack("=QQ", 0xFFFFFFFF81000000, 0x1234)
    data = bytearray(Assembler().other(60, body, time=99))
    assert redact(data, True, [source()]) == 16
    assert not any(data[8:24])
    assert Layout(Assembler().attr).time(bytes(data)) == 99
