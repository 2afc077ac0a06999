"""perfkeep.records.columns: from bytes to columns, whatever the bytes."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytest.importorskip("numpy")

from perfkeep.abi.perf_event import Attr, Branch, Flag, ReadFormat, Sample
from perfkeep.abi.records import Record
from perfkeep.errors import DataError
from perfkeep.records.cells import Column, Texts
from perfkeep.records.columns import Table, decode
from perfkeep.records.groups import carries_counts
from perfkeep.records.parts import Kind
from perfkeep.records.sample import Layout
from perfkeep.testing.assembler import PLAIN, Assembler, record

WORDS = st.integers(0, 2**64 - 1)
FORMAT = """
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;
	field:u64 addr;	offset:8;	size:8;	signed:0;
	field:char comm[16];	offset:16;	size:16;	signed:0;
	field:unsigned long args[2];	offset:32;	size:16;	signed:0;
	field:__data_loc char[] name;	offset:48;	size:4;	signed:0;
	field:__rel_loc u16[] list;	offset:52;	size:4;	signed:0;
	field:s8 pid;	offset:56;	size:1;	signed:1;
	field:struct odd odd;	offset:57;	size:3;	signed:0;
"""


def rows(table: Table, name: str) -> list[Any]:
    column = table.get(name)
    assert column is not None, name
    return cells(column)


def cells(column: Column) -> list[Any]:
    if column.form == "int":
        return list(column.values.tolist())
    assert column.offsets is not None
    parts = [
        column.values[at:end] for at, end in zip(column.offsets, column.offsets[1:], strict=False)
    ]
    if column.form == "text":
        return [part.tobytes().decode() for part in parts]
    return [part.tobytes() if column.form == "bytes" else part.tolist() for part in parts]


def table_of(data: bytes, attr: Attr, format: str = "") -> Table:
    (table,) = decode(memoryview(data), [Kind("x", attr, [7], format)]).tables
    return table


def tracepoint(
    name: bytes = b"name\0", numbers: tuple[int, ...] = (1, 2), comm: bytes = b"ab"
) -> bytes:
    """The bytes of one sample of FORMAT."""
    fixed = 60
    where = fixed | len(name) << 16
    # From the end of the u32 at 52 on.
    list_at = fixed + len(name) - 56 | 2 * len(numbers) << 16
    head = struct.pack(
        "=HBBiQ16sQQIIb3s", 1, 0, 0, -5, 2**64 - 1, comm, 8, 9, where, list_at, -1, b"odd"
    )
    return head + name + struct.pack(f"={len(numbers)}H", *numbers)


COMMON = (
    Sample.IP, Sample.TID, Sample.TIME, Sample.ADDR, Sample.ID, Sample.STREAM_ID, Sample.CPU,
    Sample.PERIOD, Sample.CALLCHAIN, Sample.RAW,
)  # fmt: skip


@given(
    kinds=st.sets(st.sampled_from(COMMON)),
    samples=st.lists(
        st.tuples(WORDS, WORDS, st.lists(WORDS, max_size=4), st.binary(max_size=20)), max_size=5
    ),
)
def test_columns_say_what_the_samples_say(
    kinds: set[Sample], samples: list[tuple[int, int, list[int], bytes]]
) -> None:
    event = Assembler(sample_type=Sample(sum(kinds)) | Sample.IDENTIFIER, cpu=3)
    written = [
        event.sample(time >> 1, ip=ip, callchain=chain, raw=raw) for time, ip, chain, raw in samples
    ]
    table = table_of(b"".join(written), event.attr)
    expected = [Layout(event.attr).decode(one) for one in written]
    expected.sort(key=lambda sample: sample.time or 0)
    assert (len(table), table.malformed) == (len(samples), 0)
    assert rows(table, "id") == [7] * len(samples)
    for field, name in (
        (Sample.IP, "ip"), (Sample.TID, "pid"), (Sample.TID, "tid"), (Sample.TIME, "time"),
        (Sample.CPU, "cpu"), (Sample.PERIOD, "period"), (Sample.ADDR, "addr"),
    ):  # fmt: skip
        if field in kinds:
            assert rows(table, name) == [getattr(one, name) for one in expected]
    if Sample.CALLCHAIN in kinds:
        assert rows(table, "callchain") == [list(one.callchain) for one in expected]
    if Sample.RAW in kinds:
        assert rows(table, "raw") == [one.raw for one in expected]


def test_every_field_of_a_tracepoint_is_a_column() -> None:
    event = Assembler(sample_type=PLAIN | Sample.RAW)
    raws = [tracepoint(), tracepoint(b"other\0", (3,), b"x" * 16), tracepoint(b"\0", ())]
    table = table_of(b"".join(event.sample(1, raw=raw) for raw in raws), event.attr, FORMAT)
    assert (len(table), table.malformed) == (3, 0)
    assert rows(table, "common_pid") == [-5] * 3
    assert rows(table, "addr") == [2**64 - 1] * 3
    assert rows(table, "comm" if table.get("comm") else "event_comm") == ["ab", "x" * 16, "ab"]
    assert rows(table, "args") == [[8, 9]] * 3
    assert rows(table, "name") == ["name", "other", ""]
    assert rows(table, "list") == [[1, 2], [3], []]
    # The context's own pid stays what it is.
    assert (rows(table, "pid"), rows(table, "event_pid")) == ([1] * 3, [-1] * 3)
    assert rows(table, "odd") == [b"odd"] * 3


def test_text_that_is_no_utf8_is_told_by_its_sign() -> None:
    event = Assembler(sample_type=PLAIN | Sample.RAW)
    raws = [tracepoint(b"caf\xc3\xa9\0"), tracepoint(b"\xff\0"), tracepoint(b"x" * 40 + b"\0")]
    table = table_of(b"".join(event.sample(1, raw=raw) for raw in raws), event.attr, FORMAT)
    assert rows(table, "name") == ["café", "\ufffd", "x" * 40]


def test_fields_behind_raw_are_read_and_what_was_not_recorded_is_empty() -> None:
    attr = Attr(
        sample_type=Sample.IDENTIFIER | Sample.READ | Sample.BRANCH_STACK | Sample.REGS_USER
        | Sample.STACK_USER | Sample.WEIGHT | Sample.REGS_INTR | Sample.PHYS_ADDR | Sample.AUX,
        read_format=ReadFormat.GROUP | ReadFormat.ID | ReadFormat.TOTAL_TIME_ENABLED,
        branch_sample_type=Branch.HW_INDEX | Branch.COUNTERS,
        sample_regs_user=0b101, sample_regs_intr=0b1, sample_stack_user=16,
    )  # fmt: skip
    read = struct.pack("=QQ4Q", 2, 50, 10, 7, 20, 8)
    branches = struct.pack("=QQ3QQ", 1, 99, 100, 200, 3, 77)
    full = read + branches + struct.pack("=Q2Q", 2, 11, 12)
    full += struct.pack("=Q16sQ", 16, b"0123456789abcdef", 8)
    full += struct.pack("=QQQQ", 6, 1, 13, 0x1000) + struct.pack("=Q8s", 8, b"auxiliar")
    # Of samples with counts, those are an event's in which its count has grown.
    bare = struct.pack("=QQ2Q", 1, 50, 15, 7) + struct.pack("=QQ", 0, 99)
    bare += struct.pack("=QQ", 0, 0) + struct.pack("=QQQ", 6, 0, 0x1000) + struct.pack("=Q", 0)
    data = b"".join(record(Record.SAMPLE, struct.pack("=Q", 7) + body) for body in (full, bare))
    table = table_of(data, attr)
    assert (len(table), table.malformed) == (2, 0)
    assert rows(table, "read_enabled") == [50, 50]
    assert rows(table, "read_value") == [[10, 20], [15]]
    assert rows(table, "read_id") == [[7, 8], [7]] and rows(table, "period") == [10, 5]
    assert rows(table, "branch_from") == [[100], []] and rows(table, "branch_flags") == [[3], []]
    assert rows(table, "branch_hw_index") == [99, 99]
    assert rows(table, "branch_counters") == [[77], []]
    assert rows(table, "user_regs") == [[11, 12], []] and rows(table, "intr_regs") == [[13], []]
    assert rows(table, "user_stack") == [b"01234567", b""]
    assert rows(table, "weight") == [6, 6] and rows(table, "phys_addr") == [0x1000] * 2
    assert rows(table, "aux") == [b"auxiliar", b""]


def test_a_sample_that_does_not_fit_is_left_out_and_counted() -> None:
    event = Assembler(sample_type=PLAIN | Sample.CALLCHAIN)
    good, bad = event.sample(1, callchain=[5]), bytearray(event.sample(2, callchain=[6]))
    struct.pack_into("=Q", bad, len(bad) - 16, 1 << 61)
    table = table_of(good + bytes(bad) + good, event.attr)
    assert (len(table), table.malformed) == (2, 1)
    assert rows(table, "time") == [1, 1] and rows(table, "callchain") == [[5], [5]]


def test_samples_that_nothing_tells_apart_are_refused() -> None:
    attr = Attr(sample_type=Sample.TIME)
    with pytest.raises(DataError, match="no ids that tell them apart"):
        decode(memoryview(b""), [Kind("a", attr, [1], ""), Kind("b", attr, [2], "")])


@example(bits=16, formats=4, bodies=[bytes(9)], branches=Branch(0), format="")
@given(
    bits=st.integers(0, 2**25 - 1),
    formats=st.integers(0, 31),
    bodies=st.lists(st.binary(max_size=120), max_size=4),
    branches=st.sampled_from([Branch(0), Branch.HW_INDEX, Branch.HW_INDEX | Branch.COUNTERS]),
    format=st.sampled_from(["", FORMAT]),
)
def test_whatever_a_sample_holds_it_is_read_or_counted(
    bits: int, formats: int, bodies: list[bytes], branches: Branch, format: str
) -> None:
    attr = Attr(
        sample_type=Sample(bits & sum(Sample)) | Sample.IDENTIFIER,
        read_format=ReadFormat(formats),
        branch_sample_type=branches,
        sample_regs_user=0xFF,
        sample_regs_intr=1,
        flags=Flag.SAMPLE_ID_ALL,
    )
    data = b"".join(record(Record.SAMPLE, struct.pack("=Q", 7) + body) for body in bodies)
    table = table_of(data, attr, format)
    if carries_counts(attr):  # as in perf, such a sample stands for nothing if nothing was counted
        assert table.malformed <= len(bodies)
    else:
        assert len(table) + table.malformed == len(bodies)
    assert all(len(one) == len(table) for one in table.columns)


def test_few_texts_are_numbered() -> None:
    import numpy as np

    column = Texts(["a", "", "ccc"]).column("comm", np.array([2, 0, 2]))
    assert cells(column) == ["ccc", "a", "ccc"]


def test_many_samples_are_read_like_few() -> None:
    event = Assembler(sample_type=PLAIN | Sample.RAW)
    data = b"".join(event.sample(time, raw=tracepoint()) for time in range(40_000))
    table = table_of(data, event.attr, FORMAT)
    assert rows(table, "time") == list(range(40_000))
    assert rows(table, "addr") == [2**64 - 1] * 40_000
    batches = list(table.batches())
    assert len(batches) > 1
    for at, whole in enumerate(table.columns):
        assert [one for batch in batches for one in cells(batch.columns[at])] == cells(whole)


def test_one_sample_that_is_shorter_than_the_others_leaves_them_as_they_are() -> None:
    event = Assembler(sample_type=PLAIN | Sample.RAW)
    short = event.sample(2, raw=b"too short")
    data = event.sample(1, raw=tracepoint()) + short + event.sample(3, raw=tracepoint())
    table = table_of(data, event.attr, FORMAT)
    assert (rows(table, "time"), table.malformed) == ([1, 3], 1)
    assert rows(table, "name") == ["name", "name"]


def test_a_batch_of_no_rows_has_the_same_types() -> None:
    event = Assembler(sample_type=PLAIN | Sample.RAW | Sample.CALLCHAIN)
    table = table_of(event.sample(1, raw=tracepoint()), event.attr, FORMAT)
    for none, some in zip(table.none.columns, table.columns, strict=True):
        assert (none.name, none.form, none.values.dtype) == (
            some.name,
            some.form,
            some.values.dtype,
        )


def test_more_fields_than_any_tracepoint_has_are_not_all_read() -> None:
    lines = [f"\tfield:u8 f{n};\toffset:{n};\tsize:1;\tsigned:0;" for n in range(2000)]
    event = Assembler(sample_type=PLAIN | Sample.RAW)
    table = table_of(event.sample(1, raw=bytes(2000)), event.attr, "\n".join(lines))
    assert rows(table, "f959") == [0] and table.get("f960") is None
