"""The record walk in Python: the twin of _walk.c, with the same results.

Serves where the native walk was not built. Works on any buffer; trusts none of its bytes.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import NamedTuple

from perfkeep.abi.records import Record
from perfkeep.records.pure_decode import Buffer
from perfkeep.records.pure_decode import decode as decode

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
        throttles: offsets of the THROTTLE records.
    """

    end: int
    records: int
    lost: int
    marks: list[int]
    throttles: list[int]


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
    at, count, lost = start, 0, 0
    marks: list[int] = []
    throttles: list[int] = []
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
        elif type == Record.THROTTLE:
            throttles.append(at)
        at += size
        count += 1
    return Walk(at, count, lost & (1 << 64) - 1, marks, throttles)


def first_chained(
    data: memoryview | bytes, start: int, ids: bytes, id_at: int = 8, id_back: int = 8
) -> int:
    """The earliest offset from which the chain of records ends exactly at the end of `data`.

    A forward ring that has wrapped has no findable first record; but the end is known, and a
    chain that reaches it by accident is unlikely, the more so when each record carries an id.

    Args:
        start: look no earlier than here.
        ids: sorted u64 words; when not empty, every record carries one of them.
        id_at: its offset in a sample.
        id_back: its distance from the end of any other record.

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
            place = id_at if type == Record.SAMPLE else size - id_back
            if not 8 <= place <= size - 8 or _WORD.unpack_from(data, at + place)[0] not in known:
                continue
        good[slot] = 1
        first = slot
    return first * 8


def split(
    data: memoryview | bytes,
    start: int,
    end: int,
    id_at: int,
    ids: bytes,
    kinds: bytes,
    count: int,
) -> tuple[int, int, list[bytes]]:
    """The records of a file, by what wrote them.

    Args:
        id_at: where in a sample its id is; < 0: every sample is of kind 0.
        ids: sorted u64 words.
        kinds: for each id a u32, below `count`.

    Returns:
        The end of the chain; the sum of what LOST and LOST_SAMPLES records say; offsets as native
        int64: of the samples of each kind, of all other records, of samples of no known id.

    Raises:
        ValueError: an id without a kind; start or count < 0.
    """
    if start < 0 or not 0 <= count <= 1 << 20 or len(kinds) // 4 < len(ids) // 8:
        raise ValueError("start and count must be >= 0, and every id have a kind")
    numbers = array("I", kinds[: len(ids) // 8 * 4])
    known = {
        id: kind
        for (id,), kind in zip(_WORD.iter_unpack(ids), numbers, strict=True)
        if kind < count
    }
    found = [array("q") for _ in range(count + 2)]
    end, at, lost = min(end, len(data)), start, 0
    while end - at >= 8:
        type, _, size = _HEADER.unpack_from(data, at)
        if size < 8 or size > end - at or not type:
            break
        bucket = count
        if type == Record.SAMPLE:
            bucket = 0 if id_at < 0 and count else count + 1
            if id_at >= 0 and id_at + 8 <= size:
                bucket = known.get(_WORD.unpack_from(data, at + id_at)[0], count + 1)
        elif type == Record.LOST and size >= 24:
            lost += _WORD.unpack_from(data, at + 16)[0]
        elif type == Record.LOST_SAMPLES and size >= 16:
            lost += _WORD.unpack_from(data, at + 8)[0]
        found[bucket].append(at)
        at += size
    return at, lost & (1 << 64) - 1, [one.tobytes() for one in found]


def _spans(data: Buffer, places: Buffer, lengths: Buffer) -> Iterator[tuple[int, int]]:
    at, size = bytes(places), bytes(lengths)
    if len(at) != len(size) or len(at) % 8:
        raise ValueError("every place needs a length")
    pairs = list(zip(array("q", at), array("q", size), strict=True))
    if any(at < 0 or length < 0 or at + length > len(data) for at, length in pairs):
        raise IndexError("a span lies outside the data")
    yield from pairs


def join(data: Buffer, places: Buffer, lengths: Buffer, out: Buffer) -> None:
    """Copy spans into `out`, one behind the other.

    Args:
        places, lengths: native int64 each.
        out: writable, of just that size.

    Raises:
        IndexError: a span lies outside the data.
        ValueError: the room is not theirs.
    """
    found = b"".join(data[at : at + length] for at, length in _spans(data, places, lengths))
    target = memoryview(out).cast("B")
    if len(found) != len(target):
        raise ValueError("the spans do not fill their room")
    target[:] = found


def spell(texts: Buffer, begins: Buffer, numbers: Buffer) -> tuple[bytes, bytes]:
    """The texts of these numbers.

    Args:
        begins: of each text, and where the last one ends, native int64.
        numbers: native int64.

    Returns:
        Where each begins, and where the last one ends, native int64; all of them, one behind the
        other.

    Raises:
        IndexError: a number without a text, or a text that is outside the texts.
    """
    whole, at = bytes(texts), array("q", bytes(begins))
    if any(not 0 <= one <= two <= len(whole) for one, two in pairwise(at)):
        raise IndexError("a text lies outside the texts")
    known = [whole[one:two] for one, two in pairwise(at)]
    wanted = array("q", bytes(numbers))
    if any(not 0 <= one < len(known) for one in wanted):
        raise IndexError("there is no text of this number")
    found = [known[one] for one in wanted]
    return array("q", accumulate(map(len, found), initial=0)).tobytes(), b"".join(found)


def latest(changes: Buffer, whose: Buffer, times: Buffer, out: Buffer) -> None:
    """The value in force for each one at its time: that of its last change until then.

    Args:
        changes: whose, ns and value of each, native int64, sorted.
        whose: native int64.
        times: ns, native int64, as many; or none: then the first change of each counts.
        out: writable, native int64, as many: the values, -1 of one without a change until then.

    Raises:
        ValueError: too few times, or too little room.
    """
    ids, at = array("q", bytes(whose)), array("q", bytes(times))
    target = memoryview(out).cast("B")
    if len(target) != len(ids) * 8 or (at and len(at) != len(ids)):
        raise ValueError("every row needs a time, if any has one, and room")
    all = list(struct.iter_unpack("=qqq", changes))
    found = array("q")
    for row, one in enumerate(ids):
        if at:
            place = bisect_right(all, (one, at[row]), key=lambda change: change[:2]) - 1
        else:
            place = bisect_left(all, one, key=lambda change: change[0])
        known = 0 <= place < len(all) and all[place][0] == one
        found.append(all[place][2] if known else -1)
    target[:] = found.tobytes()


def texts(data: Buffer, places: Buffer, lengths: Buffer) -> tuple[bytes, bytes, bytes]:
    """Characters: the bytes of each span up to its first NUL.

    Returns:
        Where each begins, and where the last one ends, native int64; all of them, one behind the
        other; the numbers of those that are not ASCII, native int64.

    Raises:
        IndexError: a span lies outside the data.
    """
    begins, found, odd = array("q", [0]), bytearray(), array("q")
    for number, (at, length) in enumerate(_spans(data, places, lengths)):
        text = bytes(data[at : at + length]).split(b"\0")[0]
        if not text.isascii():
            odd.append(number)
        found += text
        begins.append(len(found))
    return begins.tobytes(), bytes(found), odd.tobytes()
