"""From an event's own data back to how it was opened: sample_type from records, read_format from
a read.

Pure. The kernel does not tell the attr of an event that someone else opened. A layout counts as
found when every record fits it: its length, its ids, CPU, times and tasks. What no record can
tell apart is decided for the fields that perf asks for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

from perfkeep.abi.perf_event import Attr, Flag, ReadFormat, Sample
from perfkeep.abi.records import HEADER_SIZE, Record, id_field, sample_at
from perfkeep.errors import DataError
from perfkeep.records.sample import Layout, SampleRecord

_HEADER = struct.Struct("=IHH")
_WORD = struct.Struct("=Q")
_PID_MAX = 1 << 22  # PID_MAX_LIMIT
_NO_TASK = 0xFFFFFFFF
# A call chain begins with one of enum perf_callchain_context: -4095 and up.
_CONTEXTS_FROM = (1 << 64) - 4095
# Above it lies what perf -d records instead, of an event that knows no address.
_GREATEST_PERIOD = 1 << 36
# A record that an interrupt wrote inside another one may be out of order.
_MOST_DISORDER = 0.1
_IDS = (Sample.IDENTIFIER, Sample.ID)


class Written(NamedTuple):
    """A record, and the CPU in whose ring it lay."""

    cpu: int
    record: bytes


class Found(NamedTuple):
    """What records tell of the events that wrote them.

    Attributes:
        sample_types: by the kernel's id of the event; under None that of events without samples.
        trailers: whether other records carry an id and a time (sample_id_all).
    """

    sample_types: dict[int | None, Sample]
    trailers: bool


def is_sample(record: bytes) -> bool:
    return bool(_HEADER.unpack_from(record)[0] == Record.SAMPLE)


def _candidates(identifier: bool) -> Iterator[Sample]:
    """The likeliest first. Without task and time a word could be anything."""
    first = Sample.IDENTIFIER if identifier else Sample(0)
    nothing = Sample(0)
    odd = (nothing, Sample.ADDR, Sample.STREAM_ID, Sample.ADDR | Sample.STREAM_ID)
    for extra, id, cpu, period, chain, raw, ip in product(
        odd,
        (Sample.ID, nothing),
        (Sample.CPU, nothing),
        (Sample.PERIOD, nothing),
        (nothing, Sample.CALLCHAIN),
        (nothing, Sample.RAW),
        (Sample.IP, nothing),
    ):
        yield first | extra | id | Sample.TID | Sample.TIME | cpu | period | chain | raw | ip


def _length(kinds: Sample, record: bytes, sample: SampleRecord) -> int:
    """Of a sample of this layout; `sample` was decoded by it."""
    variable = Sample.CALLCHAIN | Sample.RAW
    size = HEADER_SIZE + 8 * int(kinds & ~variable).bit_count()
    if kinds & Sample.CALLCHAIN:
        size += 8 + 8 * len(sample.callchain)
    return size + (4 + len(sample.raw) if kinds & Sample.RAW else 0)


def _task(number: int | None) -> bool:
    return number is None or number <= _PID_MAX or number == _NO_TASK


def _plausible(layout: Layout, one: Written, ids: set[int]) -> bool:
    kinds = layout.attr.sample_type
    try:
        sample = layout.decode(one.record)
    except DataError:
        return False
    chain = sample.callchain
    return (
        _length(kinds, one.record, sample) == len(one.record)
        and all(_word(kinds, id, one.record) in ids for id in _IDS if kinds & id)
        # The word of the CPU has a reserved half, which the kernel leaves 0.
        and (not kinds & Sample.CPU or _word(kinds, Sample.CPU, one.record) == one.cpu)
        and _task(sample.pid)
        and _task(sample.tid)
        and (sample.time is None or 0 < sample.time < 1 << 62)
        and (sample.period is None or 0 < sample.period < _GREATEST_PERIOD)
        and (not chain or chain[0] >= _CONTEXTS_FROM)
    )


def _word(kinds: Sample, field: Sample, record: bytes) -> int:
    """A field of a sample that is at least as long as its layout says."""
    offset = sample_at(kinds, field)
    assert offset is not None
    return int(_WORD.unpack_from(record, offset)[0])


def _in_order(layout: Layout, samples: Sequence[Written]) -> bool:
    """Whether times grow along each ring: as records are given, oldest first."""
    last: dict[int, int] = {}
    pairs = wrong = 0
    for cpu, record in samples:
        time = layout.time(record) or 0
        if cpu in last:
            pairs += 1
            wrong += time < last[cpu]
        last[cpu] = time
    return wrong <= pairs * _MOST_DISORDER


def sample_type(samples: Sequence[Written], ids: set[int], identifier: bool) -> Sample | None:
    """The layout that every sample fits, or None.

    Args:
        samples: whole records, of each CPU the oldest first.
        ids: the kernel's ids of the events that may have written them.
        identifier: whether each begins with its event's id.
    """
    for kinds in _candidates(identifier):
        layout = Layout(Attr(sample_type=kinds))
        if all(_plausible(layout, one, ids) for one in samples) and _in_order(layout, samples):
            return kinds
    return None


def _first_word(record: bytes) -> int:
    return int(_WORD.unpack_from(record, HEADER_SIZE)[0]) if len(record) >= 16 else 0


def layouts(records: Sequence[Written], ids: set[int]) -> Found | None:
    """How the records of some events are laid out; None when no layout fits all of them.

    Args:
        records: at least one of them a sample; of each CPU the oldest first.
        ids: the kernel's ids of all events that write into these rings.
    """
    samples = [one for one in records if is_sample(one.record)]
    others = [one for one in records if not is_sample(one.record)]
    identifier = all(_first_word(one.record) in ids for one in samples)
    found: dict[int | None, Sample] = {}
    by_id: dict[int | None, list[Written]] = {}
    for one in samples:
        by_id.setdefault(_first_word(one.record) if identifier else None, []).append(one)
    for id, some in by_id.items():
        kinds = sample_type(some, ids, identifier)
        if kinds is None:
            return None
        found[id] = kinds
    common = next(iter(found.values()))
    found.setdefault(None, common)
    return Found(found, all(_has_trailer(common, one, ids) for one in others))


def _has_trailer(kinds: Sample, one: Written, ids: set[int]) -> bool:
    """Whether a record that is no sample ends with what sample_id_all adds."""
    layout = Layout(Attr(sample_type=kinds, flags=Flag.SAMPLE_ID_ALL))
    id, time = layout.id(one.record), layout.time(one.record)
    if kinds & id_field(kinds):
        return id in ids
    if not kinds & Sample.CPU:
        return time is None or 0 < time < 1 << 62
    # Without an id the CPU is the last word.
    return int(_WORD.unpack_from(one.record, len(one.record) - 8)[0]) == one.cpu


def read_format(words: Sequence[int], kernel_id: int) -> ReadFormat | None:
    """What read(2) of an event was asked to give, from what it gave; None when nothing fits.

    Args:
        words: of an event that leads no group of several.
        kernel_id: of this event, which tells the id from the counts around it.
    """
    times = (
        ReadFormat(0),
        ReadFormat.TOTAL_TIME_ENABLED | ReadFormat.TOTAL_TIME_RUNNING,
        ReadFormat.TOTAL_TIME_ENABLED,
    )
    for group, time, id, lost in product(
        (ReadFormat(0), ReadFormat.GROUP),
        times,
        (ReadFormat.ID, ReadFormat(0)),
        (ReadFormat(0), ReadFormat.LOST),
    ):
        id_at = 1 + bool(group) + int(time).bit_count()
        length = id_at + bool(id) + bool(lost)
        if length != len(words) or (group and words[0] != 1):
            continue
        if not id or words[id_at] == kernel_id:
            return group | time | id | lost
    return None
