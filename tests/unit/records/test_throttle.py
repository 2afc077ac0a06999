"""perfkeep.records.throttle: a lowered sample rate is counted per event and CPU, and told."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Sample
from perfkeep.abi.records import Record
from perfkeep.analysis.data import Data
from perfkeep.formats.perf_data.event import EventDesc
from perfkeep.formats.perf_data.reader import PerfData
from perfkeep.records.throttle import sentences, throttled
from perfkeep.records.writers import Writers
from perfkeep.testing.assembler import Assembler

FIELDS = Sample.IDENTIFIER | Sample.TID | Sample.TIME | Sample.CPU
ONE, TWO = Assembler(7, FIELDS), Assembler(8, FIELDS)
WRITERS = Writers([(ONE.attr, [7]), (TWO.attr, [8])])


def record(kind: int, event: Assembler, time: int = 5) -> bytes:
    return event.other(kind, struct.pack("=QQQ", time, event.id, event.id), time)


def test_throttling_is_counted_by_event() -> None:
    records = [memoryview(record(Record.THROTTLE, one)) for one in (ONE, TWO, ONE)]
    (first, second), cpus = sorted(throttled(records, WRITERS).items()), {0}
    assert (first[0][0], first[1], second[0][0], second[1]) == (0, 2, 1, 1)
    assert {first[0][1], second[0][1]} <= cpus


def test_a_file_says_which_event_was_throttled_and_where() -> None:
    events = [
        EventDesc(name, one.attr, {0: [one.id]}, None)
        for name, one in (("cpu-clock", ONE), ("page-faults", TWO))
    ]
    kinds = (Record.THROTTLE, Record.UNTHROTTLE, Record.THROTTLE)
    data = Data(PerfData(events, memoryview(b"".join(record(kind, ONE) for kind in kinds)), 0, {}))
    assert data.throttled == {("cpu-clock", 0): 2}
    assert data.complaints() == [
        "the kernel throttled cpu-clock, so samples are missing: 2 times on CPU 0"
    ]


def test_a_file_in_which_nothing_was_throttled_says_nothing() -> None:
    assert sentences(throttled([], WRITERS), ["a", "b"]) == []


@given(st.binary(max_size=80))
def test_any_bytes_are_counted_or_left_out(body: bytes) -> None:
    header = struct.pack("=IHH", Record.THROTTLE, 0, 8 + len(body))
    assert throttled([memoryview(header + body)], WRITERS).total() <= 1
