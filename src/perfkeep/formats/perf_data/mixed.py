"""Gives samples of the kernel's own software events their ids back.

Linux (6.3 to 6.18 at least: kernel/events/core.c, do_perf_sw_event) hands one and the same
perf_sample_data to all events that count the same thing, page faults for example, and what one of them
has filled in, the others do not fill in anew. So a sample may carry the id of somebody else's event,
and be as long as if it had that one's call chain as well; what lies there is as old as the ring. Stock
perf gives up such a file: "failed to process type: 9 [Bad address]".

The fields are the event's own. So events.told_apart has each such kind of a recording end its samples
with another number of words: by their lengths they are told apart, and a single kind by its being
alone.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from perfkeep import records
from perfkeep.abi.perf_event import Attr, Flag, Sample
from perfkeep.abi.records import (
    HEADER_SIZE,
    SAMPLE_ID_WORDS,
    SAMPLE_WORDS,
    Record,
    beyond,
    bits,
    word_count,
)
from perfkeep.formats.perf_data.event import EventDesc

_HEADER = struct.Struct("=IHH")
_WORD = struct.Struct("=Q")
#: Of a word each, behind the call chain.
_BEHIND = (
    Sample.WEIGHT | Sample.WEIGHT_STRUCT, Sample.DATA_SRC, Sample.TRANSACTION, Sample.PHYS_ADDR,
    Sample.CGROUP, Sample.DATA_PAGE_SIZE, Sample.CODE_PAGE_SIZE,
)  # fmt: skip
_KNOWN = bits((*SAMPLE_WORDS, Sample.CALLCHAIN, *_BEHIND))


def _end(attr: Attr, sample: memoryview) -> int | None:
    """Where a sample of this event would end; None: it is none."""
    kinds = attr.sample_type
    if beyond(kinds, _KNOWN):
        return None
    end = HEADER_SIZE + 8 * word_count(kinds, SAMPLE_WORDS)
    if kinds & Sample.CALLCHAIN:
        if end + 8 > len(sample):
            return None
        (frames,) = _WORD.unpack_from(sample, end)
        if not frames:  # never; it might be the word of a shorter kind
            return None
        end += 8 + 8 * int(frames)
    end += 8 * word_count(kinds, _BEHIND)
    return end if end <= len(sample) else None


def mended(data: memoryview, events: Sequence[EventDesc], cpu: int) -> memoryview | bytearray:
    """The records of one ring, each sample with the id of the event that wrote it; the very data, if
    nothing is wrong with it. A sample of which that cannot be told becomes the record of a lost one.
    """
    shared = [one for one in events if one.attr.counted_in_software]
    identified = all(one.attr.sample_type & Sample.IDENTIFIER for one in events)
    if not shared or not identified or not events[0].attr.flags & Flag.SAMPLE_ID_ALL:
        return data
    pairs = sorted((id, at) for at, one in enumerate(events) for id in one.all_ids)
    ids = b"".join(_WORD.pack(id) for id, _ in pairs)
    numbers = struct.pack(f"={len(pairs)}I", *(at for _, at in pairs))
    _, _, found = records.split(data, 0, len(data), HEADER_SIZE, ids, numbers, len(events))
    configs = [one.attr.config for one in shared]
    doubtful = [
        some
        for one, some in zip(events, found, strict=False)
        if one in shared and configs.count(one.attr.config) > 1
    ]
    places = [at for some in (*doubtful, found[-1]) for at in memoryview(some).cast("B").cast("q")]
    if not places:
        return data
    trailer = word_count(events[0].attr.sample_type, SAMPLE_ID_WORDS)
    whole = bytearray(data)
    for at in places:
        size = _HEADER.unpack_from(data, at)[2]
        _mend(memoryview(whole)[at : at + size], shared, cpu, trailer)
    return whole


def _mend(sample: memoryview, shared: Sequence[EventDesc], cpu: int, trailer: int) -> None:
    found = [(one, end) for one in shared if (end := _end(one.attr, sample))]
    fitting = [pair for pair in found if pair[1] == len(sample)] or found
    (id,) = _WORD.unpack_from(sample, HEADER_SIZE)
    if any(id in one.all_ids for one, _ in fitting):
        return
    if len(fitting) == 1:
        ((event, end),) = fitting
        _WORD.pack_into(sample, HEADER_SIZE, (event.ids.get(cpu) or event.all_ids)[-1])
        sample[end:] = bytes(len(sample) - end)
    elif len(sample) >= HEADER_SIZE + 8 * (1 + trailer):
        # With an empty trailer, as of what was there before.
        lost = _HEADER.pack(Record.LOST_SAMPLES, 0, len(sample)) + _WORD.pack(1)
        sample[:] = lost.ljust(len(sample), b"\0")
