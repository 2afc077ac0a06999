"""perfkeep.redactor.redact: no byte of registers and stacks is left."""

from __future__ import annotations

import struct
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Attr, Flag, Sample, Software, Type
from perfkeep.abi.records import Record
from perfkeep.redactor.redact import Source, redact
from perfkeep.testing.assembler import PLAIN, Assembler, record

PRIVATE = PLAIN | Sample.REGS_USER | Sample.STACK_USER | Sample.REGS_INTR
SECRET = 0x5EC2E75EC2E75EC2  # no address of the kernel's


def with_registers(stack: bytes, kinds: Sample = PRIVATE) -> tuple[Attr, bytes]:
    """An event, and a sample of it full of secrets."""
    attr = Attr(
        sample_type=kinds, flags=Flag.SAMPLE_ID_ALL, sample_regs_user=0b111, sample_regs_intr=0b11,
        sample_stack_user=len(stack),
    )  # fmt: skip
    user = struct.pack("=QQQQ", 2, SECRET, SECRET, SECRET)
    copy = struct.pack("=Q", len(stack)) + stack + struct.pack("=Q", len(stack))
    head = Assembler(sample_type=kinds).sample(5)[8:40]
    return attr, record(Record.SAMPLE, head + user + copy + struct.pack("=QQQ", 2, SECRET, SECRET))


def page_faults(attr: Attr) -> Attr:
    return replace(attr, type=Type.SOFTWARE, config=Software.PAGE_FAULTS)


@given(st.integers(1, 40), st.booleans())
def test_of_registers_and_stacks_no_byte_is_left_and_the_sample_is_still_one(
    words: int, backward: bool
) -> None:
    attr, sample = with_registers(SECRET.to_bytes(8, "little") * words)
    data = bytearray(sample * 3)
    assert redact(data, backward, [Source(attr.pack(), [7], "")]) == 0
    assert SECRET.to_bytes(8, "little") not in data
    at = 8 + 32
    for start in range(0, len(data), len(sample)):
        assert data[start : start + at] == sample[:at]
        found = struct.unpack_from(f"=QQQQQ{8 * words}sQQQQ", data, start + at)
        assert found == (2, 0, 0, 0, 8 * words, bytes(8 * words), 0, 2, 0, 0)


def test_beside_registers_and_stacks_what_cannot_be_told_from_them_is_0() -> None:
    attr, private = with_registers(b"secret!!" * 4)
    unknown = record(Record.SAMPLE, struct.pack("=Q", 99) + b"secret!!")
    # The kernel may say that samples of its software events are longer than they are.
    faults = page_faults(Assembler(id=8).attr)
    stale = record(Record.SAMPLE, Assembler(id=8).sample(5)[8:] + b"secret!!")
    data = bytearray(private + unknown + stale)
    sources = [Source(attr.pack(), [7], ""), Source(faults.pack(), [8], "")]
    redact(data, True, sources)
    assert b"secret!!" not in data


@given(st.integers(0, 64))
def test_what_looks_like_records_in_a_stack_is_not_taken_for_records(moved: int) -> None:
    plain = Assembler(id=8)
    inner = plain.other(Record.COMM, struct.pack("=II", 1, 1) + b"secret!\0", 5)
    attr, sample = with_registers(inner * 40)
    data = bytearray((sample * 60)[moved * 8 :])
    sources = [Source(attr.pack(), [7], ""), Source(plain.attr.pack(), [8], "")]
    redact(data, False, sources, 0)
    assert b"secret!" not in data


def test_a_sample_with_the_id_of_another_software_event_hides_registers_as_well() -> None:
    private, _ = with_registers(b"")
    longer = Assembler(id=8, sample_type=PLAIN | Sample.ADDR | Sample.PERIOD)
    sources = [
        Source(page_faults(private).pack(), [7], ""),
        Source(page_faults(longer.attr).pack(), [8], ""),
    ]
    head = Assembler(id=8).sample(5)[8:]
    data = bytearray(record(Record.SAMPLE, head + struct.pack("=QQQ", 2, SECRET, SECRET)))
    redact(data, True, sources)
    assert SECRET.to_bytes(8, "little") not in data
