"""The record walk in Python: the twin of _walk.c, with the same results.

Serves where the native walk was not built. Works on any buffer; trusts none of its bytes.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from perfkeep.abi.records import Record

_HEADER = struct.Struct("=IHH")
_WORD = struct.Struct("=Q")
_LAST_TYPE = 63


class Walk(NamedTuple):
    """A chain of records.

    Attributes:
        end: offset behind the last whole record.
        records: how many.
        lost: sum of what LOST and LOST_SAMPLES records say.
        marks: offsets of the first record and of every `every`-th after it.
    """

    end: int
    records: int
    lost: int
    marks: list[int]


def _plausible(type: int, size: int, room: int) -> bool:
    """Whether a whole record of the kernel's can lie in `room` bytes."""
    return size >= 8 and size % 8 == 0 and size <= room and 1 <= type <= _LAST_TYPE


def walk(data: memoryview | bytes, start: int, end: int, every: int) -> Walk:
    """Follow the chain of records from `start` as far as it is valid, at most to `end`.

    Args:
        every: mark one record in so many.

    Raises:
        ValueError: start < 0 or every < 1.
    """
    if start < 0 or every < 1:
        raise ValueError("start must be >= 0 and every >= 1")
    end = min(end, len(data))
    at, count, lost, marks = start, 0, 0, []
    unpack = _HEADER.unpack_from
    while end - at >= 8:
        type, _, size = unpack(data, at)
        if not _plausible(type, size, end - at):
            break
        if count % every == 0:
            marks.append(at)
        if type == Record.LOST and size >= 24:
            lost += _WORD.unpack_from(data, at + 16)[0]
        elif type == Record.LOST_SAMPLES and size >= 16:
            lost += _WORD.unpack_from(data, at + 8)[0]
        at += size
        count += 1
    return Walk(at, count, lost & (1 << 64) - 1, marks)


def first_chained(data: memoryview | bytes, start: int, ids: bytes) -> int:
    """The earliest offset from which the chain of records ends exactly at the end of `data`.

    A forward ring that has wrapped has no findable first record; but the end is known, and a
    chain that reaches it by accident is unlikely, the more so when each record carries an id.

    Args:
        start: look no earlier than here.
        ids: sorted u64 words; when not empty, every record carries one of them: a sample in its
            first word, any other in its last.

    Returns:
        The offset; len(data) rounded down to 8 when there is no chain.
    """
    known = {word for (word,) in _WORD.iter_unpack(ids)}
    slots = len(data) // 8
    good = bytearray(slots + 1)
    good[slots] = len(data) % 8 == 0
    first = slots
    for slot in range(slots - 1, (max(start, 0) + 7) // 8 - 1, -1):
        at = slot * 8
        type, _, size = _HEADER.unpack_from(data, at)
        if not _plausible(type, size, slots * 8 - at) or not good[slot + size // 8]:
            continue
        if known:
            id_at = at + 8 if type == Record.SAMPLE else at + size - 8
            if size < 16 or _WORD.unpack_from(data, id_at)[0] not in known:
                continue
        good[slot] = 1
        first = slot
    return first * 8
