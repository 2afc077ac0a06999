"""perfkeep.redactor.redact: no address of the kernel's is left, and little else is touched."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from perfkeep import records
from perfkeep.abi.perf_event import Sample
from perfkeep.abi.records import Record
from perfkeep.records.sample import Layout
from perfkeep.redactor.redact import BEYOND, LOWEST, Source, redact
from perfkeep.testing.assembler import PLAIN, Assembler, record

KERNEL = st.integers(LOWEST, BEYOND - 1)
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
    return LOWEST <= int(value) < BEYOND


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
    return 0 if LOWEST <= address < BEYOND else address


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


@given(st.binary(max_size=2000), st.booleans())
def test_any_bytes_at_all_are_survived_and_nothing_of_the_kernels_is_left(
    data: bytes, backward: bool
) -> None:
    after = bytearray(data)
    zeroed = redact(after, backward, [source()])
    assert len(after) == len(data) and 0 <= zeroed <= len(data)
    end = records.walk(memoryview(after), 0, len(after)).end if backward else 0
    for at in range(8, end - 7, 8):
        header = struct.unpack_from("=IHH", after, at)
        assert not looks_like_kernel(after, at) or header[2] % 8 == 0


@given(st.lists(samples(), min_size=1, max_size=4), st.binary(min_size=1, max_size=40))
def test_what_is_no_chain_of_records_is_0(
    some: list[tuple[bytes, list[int], bytes]], torn: bytes
) -> None:
    whole = b"".join(data for data, _, _ in some)
    broken = b"\0" * 8 + torn  # a header of type 0 ends every chain
    data = bytearray(whole + broken)
    assert redact(data, True, [source()]) == len(broken)
    assert data[len(whole) :] == bytes(len(broken))
