"""A field of a later kernel is refused because no code handles it, though the enum has its name."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest

pytest.importorskip("numpy")

from perfkeep.abi.perf_event import BRANCH_BITS, Attr, ReadFormat, Sample
from perfkeep.abi.records import OPEN_FIELDS
from perfkeep.records import parts
from perfkeep.records.bound import longest
from perfkeep.records.columns import Table, decode
from perfkeep.records.parts import Kind
from perfkeep.redactor.fields import Shape
from perfkeep.redactor.redact import Source, redact
from perfkeep.testing.assembler import PLAIN, Assembler, record

#: The bit after the newest of the released kernels, 6.18's.
NEXT = 1 << 25
ADDRESS = 0xFFFFFFFF81000000

# What a developer does first: the next header's bits get their names.
_NAMED = """
import enum
from perfkeep.abi import perf_event as abi

for enumeration, bit in ((abi.Sample, 25), (abi.ReadFormat, 5), (abi.Branch, 20)):
    members = {one.name: one.value for one in enumeration} | {"NEXT": 1 << bit}
    setattr(abi, enumeration.__name__, abi._Bits(enumeration.__name__, members))
assert abi.Sample.NEXT == 1 << 25
"""


def attr(extra: int = 0) -> Attr:
    return Attr(type=1, sample_type=Sample(PLAIN | extra))


def table(event: Attr, data: bytes) -> Table:
    (found,) = decode(memoryview(data), [Kind("x", event, [7], "")]).tables
    return found


def sample(*words: int) -> bytes:
    return Assembler().sample(5)[:8] + struct.pack(
        f"={4 + len(words)}Q", 7, 1 | 1 << 32, 5, 0, *words
    )


def test_the_decoder_and_the_redactor_refuse_a_bit_that_only_has_a_name() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _NAMED + "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))",
         "-q", "-p", "no:cacheprovider", __file__, "-k", "of_a_later_kernel"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout and "skipped" not in done.stdout


def test_the_decoder_reads_nothing_where_a_field_of_a_later_kernel_may_lie() -> None:
    body = sample(ADDRESS, 3)
    data = struct.pack("=IHH", 9, 0, len(body)) + body[8:]
    found = table(attr(NEXT | Sample.AUX), data)
    assert found.unread == NEXT
    # Of what lies before it everything is there; AUX lies behind what a kernel adds.
    assert [column.name for column in found.columns if column.name in ("id", "time", "aux")] == [
        "time", "id"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("event", "bit"),
    [
        (Attr(sample_type=PLAIN | Sample.READ, read_format=ReadFormat(1 << 5)), Sample.READ),
        (
            Attr(sample_type=PLAIN | Sample.BRANCH_STACK, branch_sample_type=BRANCH_BITS + 1),
            Sample.BRANCH_STACK,
        ),
    ],
)
def test_a_bit_of_a_later_kernel_that_makes_a_field_longer_is_refused_as_well(
    event: Attr, bit: Sample
) -> None:
    assert parts.unread(event) == bit
    assert not Shape(event, "").known


def test_the_redactor_leaves_nothing_where_a_field_of_a_later_kernel_may_lie() -> None:
    event = attr(NEXT)
    secret = b"what a program had on its stack "
    data = bytearray(record(9, sample()[8:] + secret))
    redact(data, True, [Source(event.pack(), [7], "")])
    assert not Shape(event, "").known
    assert data[8:40] == sample()[8:] and data[40:] == bytes(len(secret))


def test_a_record_with_a_field_of_a_later_kernel_may_be_as_long_as_any() -> None:
    assert longest(attr(NEXT), "", 127) == 1 << 16
    assert longest(Attr(read_format=ReadFormat(1 << 5)), "", 127) == 1 << 16


def test_a_field_of_a_later_kernel_is_not_for_every_reader() -> None:
    assert not OPEN_FIELDS & NEXT
