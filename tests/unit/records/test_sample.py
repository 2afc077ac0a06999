"""Samples by their sample_type."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Attr, Flag, ReadFormat, Sample
from perfkeep.abi.records import Record
from perfkeep.errors import DataError
from perfkeep.records.sample import Layout
from perfkeep.testing.assembler import PLAIN, Assembler, record

FIELDS = [
    Sample.IP, Sample.TID, Sample.TIME, Sample.ADDR, Sample.ID, Sample.STREAM_ID, Sample.CPU,
    Sample.PERIOD, Sample.CALLCHAIN, Sample.RAW, Sample.IDENTIFIER,
]  # fmt: skip
WORD = st.integers(0, 2**64 - 1)


@given(
    st.sets(st.sampled_from(FIELDS)),
    WORD,
    WORD,
    WORD,
    st.lists(WORD, max_size=5),
    st.binary(max_size=30),
)
def test_what_was_written_is_read_whatever_fields_there_are(
    fields: set[Sample], time: int, ip: int, period: int, chain: list[int], raw: bytes
) -> None:
    kinds = Sample(0)
    for field in fields:
        kinds |= field
    event = Assembler(id=9, sample_type=kinds, cpu=3)
    data = event.sample(time, pid=4, tid=5, ip=ip, period=period, callchain=chain, raw=raw)
    got = Layout(event.attr).decode(data)

    def there(field: Sample, value: object) -> object:
        return value if kinds & field else None

    assert got.time == there(Sample.TIME, time)
    assert (got.pid, got.tid) == (there(Sample.TID, 4), there(Sample.TID, 5))
    assert (got.ip, got.period) == (there(Sample.IP, ip), there(Sample.PERIOD, period))
    assert got.cpu == there(Sample.CPU, 3)
    assert got.id == (9 if kinds & (Sample.IDENTIFIER | Sample.ID) else None)
    assert got.callchain == (tuple(chain) if kinds & Sample.CALLCHAIN else ())
    assert got.raw[: len(raw)] == (raw if kinds & Sample.RAW else b"")


@pytest.mark.parametrize("kinds", [PLAIN, Sample.TIME | Sample.TID, Sample.TIME])
def test_the_time_of_a_record_that_is_no_sample_is_in_its_trailer(kinds: Sample) -> None:
    event = Assembler(sample_type=kinds)
    assert Layout(event.attr).time(event.comm(1, 1, b"cat", time=1234)) == 1234


def test_without_sample_id_all_only_samples_have_a_time() -> None:
    layout = Layout(Attr(sample_type=PLAIN))
    event = Assembler()
    assert layout.time(event.comm(1, 1, b"cat", time=5)) is None
    assert layout.time(event.sample(6)) == 6


def test_counts_in_a_sample_are_passed_over() -> None:
    how = ReadFormat.TOTAL_TIME_ENABLED | ReadFormat.ID | ReadFormat.GROUP
    attr = Attr(
        sample_type=Sample.TID | Sample.READ | Sample.RAW,
        read_format=how,
        flags=Flag.SAMPLE_ID_ALL,
    )
    read = struct.pack("=QQQQQQ", 2, 100, 1, 11, 2, 22)  # two events of a group
    body = struct.pack("=II", 8, 9) + read + struct.pack("=I", 4) + b"abcd"
    assert Layout(attr).decode(record(Record.SAMPLE, body)).raw == b"abcd"


@pytest.mark.parametrize("count", [2, 2**40, 2**64 - 1])
def test_a_call_chain_longer_than_its_record_is_an_error_with_its_offset(count: int) -> None:
    attr = Attr(sample_type=Sample.CALLCHAIN)
    with pytest.raises(DataError, match="does not fit") as caught:
        Layout(attr).decode(record(Record.SAMPLE, struct.pack("=QQ", count, 0)))
    assert caught.value.offset == 8


@given(st.sets(st.sampled_from([*FIELDS, Sample.READ])), st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(fields: set[Sample], body: bytes) -> None:
    kinds = Sample(0)
    for field in fields:
        kinds |= field
    data = record(Record.SAMPLE, body)
    try:
        got = Layout(Attr(sample_type=kinds)).decode(data)
    except DataError:
        return
    assert len(got.callchain) * 8 + len(got.raw) <= len(data)
