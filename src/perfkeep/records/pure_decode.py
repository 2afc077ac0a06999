"""The part of the record walk in Python that reads samples; see records.pure."""

from __future__ import annotations

import struct
from array import array
from enum import IntEnum
from typing import Any

_HEADER = struct.Struct("=IHH")
_WORD = struct.Struct("=Q")
_SIZE = struct.Struct("=I")
_MOST_FIELDS, _MOST_PARTS = 1024, 32

#: Anything with the buffer protocol, in one piece.
Buffer = Any


class Part(IntEnum):
    """What a part of a sample begins with, and so how long it is; the numbers are _walk.c's."""

    #: So many words: a.
    WORDS = 0
    #: A word that counts what follows a bytes more, each of b bytes.
    LIST = 1
    #: A u32 that counts bytes, at least a.
    BLOB = 2
    #: A word, and a words more if it is not 0.
    REGISTERS = 3
    #: A word that counts bytes, and if it is not 0 a word more, which says how many of them count.
    STACK = 4


def _room(buffer: Buffer) -> memoryview:
    whole = memoryview(buffer)
    # What has no bytes cannot be cast if it has more than one dimension.
    return whole.cast("B") if whole.nbytes else memoryview(bytearray())


def _extent(
    kind: int, a: int, b: int, data: memoryview | bytes, at: int, room: int
) -> tuple[int, int]:
    """How long a part is that begins at `at`, of which `room` bytes are left, and what it counts.

    Raises:
        IndexError: longer than that.
    """
    length, count = -1, 0
    if kind == Part.WORDS:
        length = a * 8
    elif kind == Part.BLOB and room >= 4:
        (count,) = _SIZE.unpack_from(data, at)
        length = 4 + count if count >= a else -1
    elif kind != Part.BLOB and room >= 8:
        (count,) = _WORD.unpack_from(data, at)
        if kind == Part.LIST:
            length = 8 + a + count * b
        elif kind == Part.REGISTERS:
            count = a if count else 0
            length = 8 + count * 8
        elif count:  # STACK
            length = 16 + count
            if length <= room:
                count = min(count, _WORD.unpack_from(data, at + 8 + count)[0])
        else:
            length = 8
    if not 0 <= length <= room:
        raise IndexError("a part is longer than its record")
    return length, count


def _laid_out(
    data: memoryview | bytes, at: int, parts: list[tuple[int, int, int]]
) -> list[tuple[int, int]]:
    """Where each part of a sample begins, and what it counts.

    Raises:
        IndexError: it does not fit its record.
    """
    if not 0 <= at <= len(data) - 8:
        raise IndexError("outside the data")
    end = at + _HEADER.unpack_from(data, at)[2]
    at += 8
    if not at <= end <= len(data):
        raise IndexError("outside the data")
    found = []
    for part in parts:
        length, count = _extent(*part, data, at, end - at)
        found.append((at, count))
        at += length
    return found


def _possible(parts: list[tuple[int, int, int]], fields: list[tuple[int, int, int]]) -> bool:
    # What each has at the least; the header comes last, as -1 says.
    rooms = []
    for kind, a, b in parts:
        most = 0xFFFFFFFF if kind == Part.BLOB else 0xFFFF
        if not (0 <= kind <= max(Part) and 0 <= a <= most and (kind != Part.LIST or b >= 1)):
            return False
        rooms.append({Part.WORDS: a * 8, Part.BLOB: 4 + a, Part.LIST: 8 + a}.get(Part(kind), 8))
    rooms.append(8)
    return all(
        -1 <= part < len(parts)
        and offset >= 0
        and 1 <= width <= 8
        and offset + width <= rooms[part]
        for part, offset, width in fields
    )


def decode(
    data: memoryview | bytes,
    places: Buffer,
    parts: bytes,
    fields: bytes,
    starts: Buffer,
    counts: Buffer,
    fits: Buffer,
    columns: tuple[Buffer, ...],
) -> bool:
    """Where in each sample its parts begin, and what they count; and the same fields of each, each
    into a column of its own.

    Args:
        places: of the records, native int64.
        parts: three native int64 each: a Part, and its numbers a and b.
        fields: three native int32 each: the number of the part, or -1 for the record's header; the
            offset in it; the width, 1 to 8 bytes.
        starts, counts: writable; for each part a row of native int64, one for each sample.
        fits: writable, a byte for each sample: whether it fits its record.
        columns: writable, of just the size.

    Returns:
        Whether all fit. If not, only `fits` is to be used.

    Raises:
        ValueError: a part or a field that cannot be, or not the room for all.
    """
    some, wanted = array("q", bytes(places)), list(struct.iter_unpack("=qqq", parts))
    read = list(struct.iter_unpack("=iii", fields))
    begun, counted, fitting = _room(starts), _room(counts), _room(fits)
    size = len(wanted) * len(some) * 8
    if len(wanted) > _MOST_PARTS or len(read) > _MOST_FIELDS or len(columns) != len(read):
        raise ValueError("too many parts or fields, or no column for each")
    if not _possible(wanted, read) or (len(begun), len(counted), len(fitting)) != (
        size, size, len(some),
    ):  # fmt: skip
        raise ValueError("a part or a field that cannot be, or not the room for all")
    targets = [_room(one) for one in columns]
    for target, (_, _, width) in zip(targets, read, strict=True):
        if len(target) != width * len(some):
            raise ValueError("a column has not the room for its field")
    rows = []
    for row, at in enumerate(some):
        try:
            rows.append([*_laid_out(data, at, wanted), (at, 0)])
            fitting[row] = 1
        except IndexError:
            fitting[row] = 0
    if len(rows) < len(some):
        return False
    for whole, which in ((begun, 0), (counted, 1)):
        whole[:] = array(
            "q", [one[at][which] for at in range(len(wanted)) for one in rows]
        ).tobytes()
    for target, (part, offset, width) in zip(targets, read, strict=True):
        begins = (one[part][0] + offset for one in rows)
        target[:] = b"".join(data[at : at + width] for at in begins)
    return True
