"""Which bytes of a copy are the kernel's addresses. Pure.

Every 8-byte value from 0xff00000000000000 on is taken for one: the kernel's half of the address
space begins there or above it, on x86_64 and aarch64, whatever the depth of their page tables. What
is left alone are the 4096 highest, which are small negative numbers and PERF_CONTEXT_* marks. It is
replaced by 0, as the kernel does it, so no record changes its size.

    samples, all fields but RAW   every word
    RAW with a known format       every field of 8 bytes, arrays of such, and what lies behind the
                                  last field, where strings and arrays of any length are
    RAW without, records of       at every byte
    unknown events
    other records                 every word; of TEXT_POKE all of the code
    what is no chain of records   all of it is 0

It is better to take a number too many than an address too few.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from perfkeep import records
from perfkeep.abi.perf_event import Attr
from perfkeep.abi.records import HEADER_SIZE, Record
from perfkeep.errors import DataError
from perfkeep.records.sample import Layout

LOWEST, BEYOND = 0xFF << 56, 2**64 - 4096

_HEADER = struct.Struct("=IHH")
_WORD = struct.Struct("=Q")
_FIELD = re.compile(r"field:([^;]*);\s*offset:(\d+);\s*size:(\d+);")


class Source(NamedTuple):
    """One kind of event whose records may be in a copy: its attr, the kernel's ids of its events,
    and for a tracepoint what tracefs says of its fields."""

    attr: bytes
    ids: Sequence[int]
    format: str


class _Known(NamedTuple):
    layout: Layout
    #: Offsets in RAW at which a value of 8 bytes stands; None: at any.
    places: tuple[int, ...] | None
    #: From here on at any.
    tail: int


def redact(data: bytearray, backward: bool, sources: Iterable[Source]) -> int:
    """Replace, in place. Gives the number of bytes that could not be understood and are 0 now.

    Args:
        data: as broker.rings copies it, in one piece.
    """
    known = {id: one for source in sources for one in [_know(source)] for id in source.ids}
    view = memoryview(data)
    ids = b"".join(_WORD.pack(id) for id in sorted(known))
    start = 0 if backward else records.first_chained(view, 0, ids)
    if not backward and records.walk(view, 0, len(data)).end == len(data):
        start = 0
    end = records.walk(view, start, len(data)).end
    at = start
    while at < end:
        size = _HEADER.unpack_from(data, at)[2]
        _record(view[at : at + size], known)
        at += size
    data[:start] = bytes(start)
    data[end:] = bytes(len(data) - end)
    return start + len(data) - end


def _know(source: Source) -> _Known:
    layout = Layout(Attr.unpack(source.attr))
    fields = _FIELD.findall(source.format)
    if not fields:
        return _Known(layout, None, 0)
    places: list[int] = []
    tail = 0
    for declared, at, size in ((one, int(two), int(three)) for one, two, three in fields):
        tail = max(tail, at + size)
        if size >= 8 and not (size > 8 and re.search(r"\bchar\b", declared)):
            places += range(at, at + size - 7, 8)
    return _Known(layout, tuple(places), tail)


def _record(record: memoryview, known: Mapping[int, _Known]) -> None:
    kind = _HEADER.unpack_from(record)[0]
    if kind != Record.SAMPLE:
        _words(record, HEADER_SIZE, len(record))
        if kind == Record.TEXT_POKE:  # address, two lengths, code
            record[20:] = bytes(max(0, len(record) - 20))
        return
    # The first word of every sample of ours is its event's id.
    source = known.get(_WORD.unpack_from(record, 8)[0]) if len(record) >= 16 else None
    try:
        span = source.layout.raw_span(record) if source is not None else None
    except DataError:
        source = None
    if source is None:
        _any_place(record, HEADER_SIZE, len(record))
        return
    if span is None:
        _words(record, HEADER_SIZE, len(record))
        return
    start, end = span
    _words(record, HEADER_SIZE, start)
    if source.places is None:
        _any_place(record, start, end)
    else:
        for place in source.places:
            _value(record, start + place, end)
        _any_place(record, start + source.tail, end)
    # Registers and stacks lie behind RAW, whose end is at a word.
    _words(record, end, len(record))


def _words(record: memoryview, start: int, end: int) -> None:
    """Every whole word between two offsets of a record, which is a whole number of words itself."""
    for at in range(-(-start // 8) * 8, end - 7, 8):
        _value(record, at, end)


def _any_place(record: memoryview, start: int, end: int) -> None:
    for at in range(start, end - 7):
        if record[at + 7] == 0xFF:
            _value(record, at, end)


def _value(record: memoryview, at: int, end: int) -> None:
    if at + 8 <= end and LOWEST <= _WORD.unpack_from(record, at)[0] < BEYOND:
        record[at : at + 8] = bytes(8)
