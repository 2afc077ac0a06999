"""Samples that carry counts of a group: one for each event whose count has grown. Pure.

Of a group like {cpu-clock,page-faults}:S only the leader samples, and each of its samples carries
(READ) the counts of all members. As perf does (evlist__deliver_sample), a sample is one of every
event whose count is in it, with the difference to the count before as its period; without a
difference it is none of that event.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from perfkeep.abi.perf_event import Attr, Flag, ReadFormat, Sample
from perfkeep.errors import DataError
from perfkeep.records.writers import Writers


class Part(NamedTuple):
    """The part of a sample that belongs to one event.

    Attributes:
        event: the event's number.
        id: the kernel's, of the event.
        writer: the number of the event that wrote the sample, whose layout it has.
        offset: of the sample.
    """

    event: int
    id: int
    period: int
    writer: int
    offset: int


def carries_counts(attr: Attr) -> bool:
    """True if samples of this event carry counts, and say whose."""
    return bool(attr.sample_type & Sample.READ and attr.read_format & ReadFormat.ID)


def parts(
    samples: Iterable[tuple[int, memoryview]], writers: Writers
) -> tuple[list[Part], list[tuple[int, int]]]:
    """The parts of these samples in the order of time; and (writer, offset) of those whose counts do
    not fit their record.

    Args:
        samples: (offset, record) each, of events that carry counts.
    """
    counted, malformed = [], []
    for offset, record in samples:
        number = writers.of(record)
        if number is None:
            continue
        layout = writers.layouts[number]
        try:
            # An inherited event counts in each task from 0.
            task = layout.tid(record) if layout.attr.flags & Flag.INHERIT else None
            counted.append((layout.time(record) or 0, number, offset, task, layout.counts(record)))
        except DataError:
            malformed.append((number, offset))
    counted.sort(key=lambda sample: sample[0])
    before: dict[tuple[int, int | None], int] = {}
    found = []
    for _, number, offset, task, counts in counted:
        for id, count in counts:
            event = writers.event(id)
            last = before.get((id, task), 0)
            period = count - last if count >= last else count  # it was reset
            before[id, task] = count
            if event is not None and period:
                found.append(Part(event, id, period, number, offset))
    return found, malformed
