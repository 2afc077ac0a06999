"""Reads perf.data files: those of perfkeep, and those that stock perf wrote in file mode.

The bytes may be anything: what makes no sense is a DataError with its offset.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from perfkeep.abi.perf_data import HEADER, MAGIC, MAGIC_SWAPPED, SECTION, Feature
from perfkeep.abi.perf_event import ATTR_SIZE_VER0, Attr, Type
from perfkeep.errors import DataError
from perfkeep.formats.perf_data.event import EventDesc
from perfkeep.formats.perf_data.tracing import parse_tracing_data
from perfkeep.formats.perf_data.unpacked import unpack

_RECORD = struct.Struct("=IHH")
_MOST_EVENTS = 1 << 16
# struct perf_pipe_file_header: magic and size
_PIPE_HEADER = 16


@dataclass(slots=True)
class PerfData:
    """A file: its events, the bytes of its records, and its features as they lie.

    Attributes:
        data: the data section; `records` walks it.
        data_at: its offset in the file, for messages.
        aux_bytes: of AUX data that was left out.
        unread: bytes at the end that are no record.
    """

    events: list[EventDesc]
    data: memoryview
    data_at: int
    features: dict[Feature | int, memoryview] = field(default_factory=dict)
    aux_bytes: int = 0
    unread: int = 0

    def records(self) -> Iterator[tuple[int, memoryview]]:
        """(type, bytes with the header) of each record.

        Raises:
            DataError: a record that does not fit.
        """
        at, data = 0, self.data
        while at < len(data):
            if len(data) - at < _RECORD.size:
                raise DataError(f"{len(data) - at} bytes are left, no record", self.data_at + at)
            kind, _, size = _RECORD.unpack_from(data, at)
            if size < _RECORD.size or size > len(data) - at:
                raise DataError(f"a record of {size} bytes does not fit", self.data_at + at)
            yield kind, data[at : at + size]
            at += size

    def text(self, feature: Feature) -> str | None:
        """A feature that is one string: HOSTNAME, OSRELEASE, CPUDESC …"""
        data = self.features.get(feature)
        return None if data is None else _string(data, 0)[0]

    @property
    def command(self) -> list[str]:
        """The words of the command that made the file."""
        data = self.features.get(Feature.CMDLINE)
        if data is None or len(data) < 4:
            return []
        (count,), at, words = struct.unpack_from("=I", data), 4, []
        for _ in range(count):
            word, at = _string(data, at)
            words.append(word)
        return words

    @property
    def sample_time(self) -> tuple[int, int] | None:
        """(first, last) in ns of the recording's clock."""
        data = self.features.get(Feature.SAMPLE_TIME)
        if data is None or len(data) < 16:
            return None
        first, last = struct.unpack_from("=QQ", data)
        return first, last


def _string(data: memoryview, at: int) -> tuple[str, int]:
    """perf_header_string at an offset, and the offset behind it.

    Raises:
        DataError: it does not fit.
    """
    if at + 4 > len(data):
        raise DataError("a string begins behind the end of its section", at)
    (room,) = struct.unpack_from("=I", data, at)
    if room > len(data) - at - 4:
        raise DataError(f"a string of {room} bytes does not fit its section", at)
    raw = bytes(data[at + 4 : at + 4 + room]).split(b"\0")[0]
    return raw.decode(errors="replace"), at + 4 + room


def _part(file: memoryview, at: int, size: int, what: str) -> memoryview:
    if at > len(file) or size > len(file) - at:
        raise DataError(
            f"{what} should lie at {at}, {size} bytes long, but the file has {len(file)}", at
        )
    return file[at : at + size]


def _events(file: memoryview, at: int, size: int, each: int) -> list[EventDesc]:
    if each < ATTR_SIZE_VER0 + SECTION.size or size % each or size // each > _MOST_EVENTS:
        raise DataError(f"{size} bytes of attrs of {each} bytes make no sense", at)
    attrs = _part(file, at, size, "the attrs")
    found: list[EventDesc] = []
    for place in range(0, size, each):
        ids_at, ids_size = SECTION.unpack_from(attrs, place + each - SECTION.size)
        words = _part(file, ids_at, ids_size, "an event's ids")
        if ids_size % 8:
            raise DataError(f"{ids_size} bytes are no list of ids", ids_at)
        attr = Attr.unpack(bytes(attrs[place : place + each - SECTION.size]))
        name = f"event {len(found)}"
        # Which CPU an id belongs to is not told here.
        found.append(EventDesc(name, attr, {-1: words.cast("Q").tolist()}, None))
    return found


def _features(file: memoryview, at: int, bitmap: bytes) -> dict[Feature | int, memoryview]:
    bits = int.from_bytes(bitmap, "little")
    numbers = [number for number in range(256) if bits >> number & 1]
    table = _part(file, at, SECTION.size * len(numbers), "the table of features")
    found: dict[Feature | int, memoryview] = {}
    for place, number in enumerate(numbers):
        offset, size = SECTION.unpack_from(table, place * SECTION.size)
        key = Feature(number) if number in Feature._value2member_map_ else number
        found[key] = _part(file, offset, size, f"feature {number}")
    return found


def _with_tracepoints(events: list[EventDesc], section: memoryview | None) -> list[EventDesc]:
    """The events, those of tracepoints with the layout of their fields."""
    if section is None:
        return events
    known = {found[2]: found for found in parse_tracing_data(section)}
    return [
        replace(event, tracepoint=known.get(event.attr.config))
        if event.attr.type == Type.TRACEPOINT
        else event
        for event in events
    ]


def _named(events: list[EventDesc], desc: memoryview | None) -> list[EventDesc]:
    """The events with the names that EVENT_DESC gives them, in the same order."""
    if desc is None or len(desc) < 8:
        return events
    (count, size), at, named = struct.unpack_from("=II", desc), 8, []
    for event in events[:count]:
        if at + size + 4 > len(desc):
            raise DataError("an event's description does not fit its section", at)
        (ids,) = struct.unpack_from("=I", desc, at + size)
        name, behind = _string(desc, at + size + 4)
        at = behind + 8 * ids
        named.append(replace(event, name=name))
    return named + events[count:]


def parse(file: memoryview) -> PerfData:
    """A whole file's bytes.

    Raises:
        DataError: no perf.data file, one of the other byte order, or a broken one.
    """
    if len(file) < _PIPE_HEADER or bytes(file[:8]) not in (MAGIC, MAGIC_SWAPPED):
        raise DataError("this is no perf.data file: it does not begin with PERFILE2", 0)
    if bytes(file[:8]) == MAGIC_SWAPPED:
        raise DataError("this perf.data file was written by a machine of the other byte order", 0)
    (size,) = struct.unpack_from("=Q", file, 8)
    if size == _PIPE_HEADER:
        return _parse_pipe(file)
    if size != HEADER.size:
        raise DataError(f"a header of {size} bytes is not known; {HEADER.size} is", 8)
    if len(file) < HEADER.size:
        raise DataError(f"the header should have {HEADER.size} bytes, the file has {len(file)}", 8)
    _, size, each, attrs_at, attrs_size, data_at, data_size, _, _, bitmap = HEADER.unpack_from(file)
    events = _events(file, attrs_at, attrs_size, each)
    data = _part(file, data_at, data_size, "the data")
    features = _features(file, data_at + data_size, bitmap)
    events = _named(events, features.get(Feature.EVENT_DESC))
    events = _with_tracepoints(events, features.get(Feature.TRACING_DATA))
    if {Feature.COMPRESSED, Feature.AUXTRACE} & features.keys():
        found = unpack(data, data_at)
        return PerfData(events, found.data, data_at, features, found.aux_bytes, found.unread)
    return PerfData(events, data, data_at, features)


def _parse_pipe(file: memoryview) -> PerfData:
    """What `perf record -o -` wrote: all that a header has comes as records."""
    found = unpack(file[_PIPE_HEADER:], _PIPE_HEADER)
    events = [
        EventDesc(
            next((found.names[id] for id in ids if id in found.names), f"event {number}"),
            attr,
            {-1: ids},
            None,
        )
        for number, (attr, ids) in enumerate(found.attrs)
    ]
    features = found.features
    events = _named(events, features.get(Feature.EVENT_DESC))
    events = _with_tracepoints(events, features.get(Feature.TRACING_DATA))
    return PerfData(events, found.data, 0, features, found.aux_bytes, found.unread)


def read(path: str) -> PerfData:
    """A file by its name.

    Raises:
        DataError: no perf.data file, or a broken one.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return parse(memoryview(file.read()))
