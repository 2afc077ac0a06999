"""The reader finds in a file what the assembler put there."""

from __future__ import annotations

from perfkeep.abi.perf_data import Feature
from perfkeep.formats.perf_data.features import string
from perfkeep.formats.perf_data.reader import parse
from perfkeep.testing.assembler import Assembler, file_event, perf_file, perf_pipe


def test_a_file_holds_its_events_records_and_features() -> None:
    one, two = Assembler(id=10), Assembler(id=20)
    events = [file_event("cpu-clock", one.attr, 10), file_event("task-clock", two.attr, 20, 21)]
    records = [one.comm(5, 5, b"worker"), two.sample(7, pid=5, tid=5)]
    found = parse(memoryview(perf_file(events, records, {Feature.HOSTNAME: string("here")})))
    assert found.events == events
    assert bytes(found.data) == b"".join(records)
    assert found.text(Feature.HOSTNAME) == "here"


def test_a_pipe_holds_its_events_and_records() -> None:
    one = Assembler(id=10)
    records = [one.comm(5, 5, b"worker"), one.sample(7, pid=5, tid=5)]
    found = parse(memoryview(perf_pipe([file_event("", one.attr, 10)], records)))
    assert [(event.attr, event.all_ids) for event in found.events] == [(one.attr, [10])]
    assert bytes(found.data) == b"".join(records)
