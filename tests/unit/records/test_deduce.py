"""How records are laid out, found from the records alone."""

from __future__ import annotations

import struct

import pytest

from perfkeep.abi.perf_event import PERF_CONTEXT_USER, ReadFormat, Sample
from perfkeep.abi.records import Record
from perfkeep.records.deduce import Written, layouts, read_format
from perfkeep.testing.assembler import Assembler, record

BASE = Sample.IP | Sample.TID | Sample.TIME
TIME = 17_174_942_820_000
IP = 0xFFFF_FFFF_81B6_FF6D


def samples(kinds: Sample, id: int = 700, cpu: int = 3, count: int = 20) -> list[Written]:
    event = Assembler(id=id, sample_type=kinds, cpu=cpu)
    return [
        Written(
            cpu,
            event.sample(
                TIME + 1000 * n,
                pid=40 + n,
                tid=50 + n,
                ip=IP + n,
                period=250_000 + n,
                callchain=[PERF_CONTEXT_USER, *range(n % 4)],
                raw=bytes(4 + 8 * (n % 3)),
            ),
        )
        for n in range(count)
    ]


@pytest.mark.parametrize(
    "kinds",
    [
        BASE | Sample.PERIOD,
        BASE | Sample.CPU,
        BASE | Sample.CPU | Sample.PERIOD,
        BASE | Sample.CPU | Sample.PERIOD | Sample.CALLCHAIN,
        BASE | Sample.ID | Sample.PERIOD,
        BASE | Sample.ID | Sample.CPU | Sample.PERIOD | Sample.RAW,
        BASE | Sample.IDENTIFIER | Sample.CPU | Sample.PERIOD,
        BASE | Sample.IDENTIFIER | Sample.CPU | Sample.PERIOD | Sample.RAW | Sample.CALLCHAIN,
        BASE | Sample.IDENTIFIER | Sample.CPU | Sample.ADDR,
        Sample.TID | Sample.TIME | Sample.CPU | Sample.IDENTIFIER,
        Sample.TID | Sample.TIME | Sample.CPU | Sample.IDENTIFIER | Sample.RAW,
    ],
)
def test_the_layouts_that_perf_and_perfkeep_ask_for_are_found(kinds: Sample) -> None:
    found = layouts(samples(kinds), {700, 701})
    assert found is not None
    assert found.sample_types[700 if kinds & Sample.IDENTIFIER else None] == kinds
    assert found.trailers


def test_events_that_write_their_ids_first_may_have_different_layouts() -> None:
    tracepoint = Sample.IDENTIFIER | Sample.TID | Sample.TIME | Sample.CPU | Sample.RAW
    clock = Sample.IDENTIFIER | BASE | Sample.CPU | Sample.PERIOD
    found = layouts(samples(tracepoint, 700) + samples(clock, 701), {700, 701, 702})
    assert found is not None
    assert (found.sample_types[700], found.sample_types[701]) == (tracepoint, clock)


def test_a_layout_that_is_not_known_is_not_guessed() -> None:
    odd = [Written(0, record(Record.SAMPLE, struct.pack("=5Q", *range(1 << 63, (1 << 63) + 5))))]
    assert layouts(odd, {700}) is None


def test_one_record_that_does_not_fit_is_enough_to_refuse() -> None:
    kinds = BASE | Sample.IDENTIFIER | Sample.CPU
    wrong = Assembler(id=700, sample_type=kinds | Sample.ADDR, cpu=3).sample(TIME, ip=IP)
    assert layouts([*samples(kinds), Written(3, wrong)], {700}) is None


def test_times_that_run_backwards_are_no_times() -> None:
    assert layouts(samples(BASE | Sample.CPU)[::-1], {700}) is None


@pytest.mark.parametrize("trailer", [True, False])
def test_records_that_are_no_samples_show_whether_they_have_a_trailer(trailer: bool) -> None:
    kinds = BASE | Sample.IDENTIFIER | Sample.CPU
    body = struct.pack("=QQ", 0, 9)
    tail = struct.pack("=IIQIIQ", 4, 5, TIME, 3, 0, 700) if trailer else b""
    other = Written(3, record(Record.LOST, body + tail))
    found = layouts([*samples(kinds), other], {700})
    assert found is not None
    assert found.trailers == trailer


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([5], ReadFormat(0)),
        ([5, 700], ReadFormat.ID),
        ([5, 700, 0], ReadFormat.ID | ReadFormat.LOST),
        ([5, 9, 8], ReadFormat.TOTAL_TIME_ENABLED | ReadFormat.TOTAL_TIME_RUNNING),
        (
            [5, 9, 8, 700, 0],
            ReadFormat.TOTAL_TIME_ENABLED
            | ReadFormat.TOTAL_TIME_RUNNING
            | ReadFormat.ID
            | ReadFormat.LOST,
        ),
        (
            [1, 9, 8, 5, 700],
            ReadFormat.GROUP
            | ReadFormat.TOTAL_TIME_ENABLED
            | ReadFormat.TOTAL_TIME_RUNNING
            | ReadFormat.ID,
        ),
        ([2, 9, 8, 5, 700, 6, 701], None),
    ],
)
def test_what_a_read_gives_shows_what_it_was_asked_for(
    words: list[int], expected: ReadFormat | None
) -> None:
    assert read_format(words, 700) == expected
