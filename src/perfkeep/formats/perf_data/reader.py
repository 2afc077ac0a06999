"""Read perf.data files: those of perfkeep, and those of stock perf, from a file, a pipe or a directory.

The bytes may be anything. What the samples need and makes no sense is a DataError with its offset;
damage elsewhere is left out, and listed in `PerfData.problems`.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from perfkeep import records
from perfkeep.abi.event_names import recorded_name
from perfkeep.abi.perf_data import HEADER, MAGIC, MAGIC_SWAPPED, SECTION, Feature
from perfkeep.abi.perf_event import ATTR_SIZE_VER0, Attr, Type
from perfkeep.errors import DataError, UsageError
from perfkeep.formats.perf_data.event import EventDesc
from perfkeep.formats.perf_data.tracing import parse_tracing_data
from perfkeep.formats.perf_data.unpacked import Unpacked, unpack

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
        problems: sentences about parts of the file that are missing or damaged.
    """

    events: list[EventDesc]
    data: memoryview
    data_at: int
    features: dict[Feature | int, memoryview] = field(default_factory=dict)
    aux_bytes: int = 0
    unread: int = 0
    problems: list[str] = field(default_factory=list)

    def records(self) -> Iterator[tuple[int, memoryview]]:
        """(type, bytes with the header) of each record, up to the last whole one."""
        at, data = 0, self.data
        while len(data) - at >= _RECORD.size:
            kind, _, size = _RECORD.unpack_from(data, at)
            if size < _RECORD.size or size > len(data) - at or not kind:
                return
            yield kind, data[at : at + size]
            at += size

    @property
    def end(self) -> int:
        """Behind the last whole record of the data."""
        end, _, _ = records.split(self.data, 0, len(self.data), -1, b"", b"", 0)
        return end

    def complaints(self, end: int) -> list[str]:
        """The parts of the file that could not be read, a sentence each.

        Args:
            end: of the last whole record in `data`.
        """
        sentences = list(self.problems)
        if unread := len(self.data) - end + self.unread:
            sentences.append(f"the last {unread:,} bytes are no records and are left out")
        if self.aux_bytes:
            sentences.append(f"{self.aux_bytes:,} bytes of AUX data are left out")
        return sentences

    def repacked(self) -> PerfData:
        """The same with the kernel's records alone: perf's own may have any length."""
        unpacked = unpack(self.data, self.data_at)
        return replace(
            self,
            data=unpacked.data,
            features={**unpacked.features, **self.features},
            unread=self.unread + unpacked.unread,
        )

    def text(self, feature: Feature) -> str | None:
        """A feature that is one string: HOSTNAME, OSRELEASE, CPUDESC …; None: missing or damaged."""
        data = self.features.get(feature)
        try:
            return None if data is None else _string(data, 0)[0]
        except DataError:
            return None

    @property
    def command(self) -> list[str]:
        """The words of the command that made the file."""
        data = self.features.get(Feature.CMDLINE)
        if data is None or len(data) < 4:
            return []
        (count,), at, words = struct.unpack_from("=I", data), 4, list[str]()
        try:
            for _ in range(count):
                word, at = _string(data, at)
                words.append(word)
        except DataError:
            return []
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
    events: list[EventDesc] = []
    for offset in range(0, size, each):
        ids_at, ids_size = SECTION.unpack_from(attrs, offset + each - SECTION.size)
        words = _part(file, ids_at, ids_size, "an event's ids")
        if ids_size % 8:
            raise DataError(f"{ids_size} bytes are no list of ids", ids_at)
        attr = Attr.unpack(bytes(attrs[offset : offset + each - SECTION.size]))
        # Which CPU an id belongs to is not in the file.
        events.append(EventDesc("", attr, {-1: words.cast("Q").tolist()}, None))
    return events


class _Table:
    """The table of features behind the data, and those that fit the file.

    Attributes:
        missing: numbers of those that do not.
        plausible: whether the sections lie right behind the table, as every writer puts them.
    """

    def __init__(self, file: memoryview, at: int, bitmap: bytes) -> None:
        bits = int.from_bytes(bitmap, "little")
        numbers = [number for number in range(256) if bits >> number & 1]
        self.features: dict[Feature | int, memoryview] = {}
        self.missing: list[int] = []
        end = at + SECTION.size * len(numbers)
        sections = []
        for number, offset in zip(numbers, range(at, end, SECTION.size), strict=True):
            section = SECTION.unpack_from(file, offset) if offset + 16 <= len(file) else None
            if section is None or sum(section) > len(file):
                self.missing.append(number)
            else:
                sections.append(section[0])
                self.features[_feature(number)] = file[section[0] : sum(section)]
        self.plausible = not self.missing and min(sections, default=len(file)) == end


def _feature(number: int) -> Feature | int:
    return Feature(number) if number in Feature._value2member_map_ else number


def _name_of(number: int) -> str:
    feature = _feature(number)
    return feature.name if isinstance(feature, Feature) else str(number)


def _with_tracepoints(file: PerfData) -> None:
    """Give events of tracepoints the layout of their fields."""
    section = file.features.get(Feature.TRACING_DATA)
    if section is None:
        return
    try:
        known = {found[2]: found for found in parse_tracing_data(section)}
    except DataError as error:
        file.problems.append(f"the formats of tracepoints cannot be read: {error}")
        del file.features[Feature.TRACING_DATA]
        return
    file.events = [
        replace(event, tracepoint=known.get(event.attr.config))
        if event.attr.type == Type.TRACEPOINT
        else event
        for event in file.events
    ]


def _with_names(file: PerfData) -> None:
    """Give events the names of EVENT_DESC, which are in the same order; the others those that follow
    from their attrs.
    """
    names = []
    if section := file.features.get(Feature.EVENT_DESC):
        try:
            names = _described(section)
        except DataError as error:
            file.problems.append(f"the names of events cannot be read: {error}")
            del file.features[Feature.EVENT_DESC]
    for number, event in enumerate(file.events):
        name = names[number] if number < len(names) else event.name
        if not name and event.tracepoint:
            name = ":".join(event.tracepoint[:2])
        file.events[number] = replace(event, name=name or recorded_name(event.attr))


def _described(section: memoryview) -> list[str]:
    """Names in EVENT_DESC.

    Raises:
        DataError: an event does not fit.
    """
    if len(section) < 8:
        raise DataError("the section has no room for the number of events", 0)
    (count, size), at, names = struct.unpack_from("=II", section), 8, list[str]()
    while len(names) < count:
        if at + size + 4 > len(section):
            raise DataError("an event's description does not fit its section", at)
        (ids,) = struct.unpack_from("=I", section, at + size)
        name, behind = _string(section, at + size + 4)
        at = behind + 8 * ids
        names.append(name)
    return names


def parse(file: memoryview, parts: Sequence[memoryview] = ()) -> PerfData:
    """A whole file's bytes.

    Args:
        parts: of a directory: the records that its other files hold.

    Raises:
        DataError: no perf.data file, one of the other byte order, or a broken one.
    """
    if len(file) < _PIPE_HEADER or bytes(file[:8]) not in (MAGIC, MAGIC_SWAPPED):
        begins = "does not begin with PERFILE2" if len(file) else "is empty"
        raise DataError(f"this is no perf.data file: it {begins}", 0)
    if bytes(file[:8]) == MAGIC_SWAPPED:
        raise DataError(
            "this perf.data file was written by a machine of the other byte order",
            0,
            hint="read it on a machine of that byte order",
        )
    (size,) = struct.unpack_from("=Q", file, 8)
    parsed = _pipe(file) if size == _PIPE_HEADER else _file(file, parts)
    _with_tracepoints(parsed)
    _with_names(parsed)
    return parsed


def _file(file: memoryview, parts: Sequence[memoryview]) -> PerfData:
    """Read a file of `perf record -o FILE`, without names and formats of its events."""
    (size,) = struct.unpack_from("=Q", file, 8)
    if size != HEADER.size:
        raise DataError(f"a header of {size} bytes is not known; {HEADER.size} is", 8)
    if len(file) < HEADER.size:
        raise DataError(f"the header should have {HEADER.size} bytes, the file has {len(file)}", 8)
    _, _, each, attrs_at, attrs_size, data_at, data_size, _, _, bitmap = HEADER.unpack_from(file)
    events = _events(file, attrs_at, attrs_size, each)
    _part(file, data_at, 0, "the data")
    table = _Table(file, data_at + data_size, bitmap)
    problems = []
    # perf writes the size when it ends. A file may have no records, but then its features follow.
    unfinished = not data_size and not table.plausible
    cut = unfinished or data_size > len(file) - data_at
    if cut:
        table.features, data_size = {}, len(file) - data_at
    elif table.missing:
        names = ", ".join(map(_name_of, table.missing))
        problems.append(f"features that lie outside the file are left out: {names}")
    packed = {Feature.COMPRESSED, Feature.AUXTRACE} & table.features.keys()
    sections = [file[data_at : data_at + data_size], *parts]
    unpacked = [unpack(one, data_at) if packed or cut else Unpacked(one) for one in sections]
    unread = sum(one.unread for one in unpacked)
    if cut:
        left_out = f" ({unread:,} bytes behind it are left out)" if unread else ""
        problems.append(
            f"{'perf record did not end properly' if unfinished else 'this file is cut off'}: "
            f"features are missing, and records are read up to the last whole one{left_out}"
        )
        unread = 0
    if Feature.DIR_FORMAT in table.features and not parts:
        problems.append(
            "this is one file of a directory that perf record --threads wrote: samples lie in the "
            "files data.0, data.1 … of that directory; name the directory"
        )
    return PerfData(
        events,
        unpacked[0].data if not parts else memoryview(b"".join(one.data for one in unpacked)),
        data_at,
        table.features,
        sum(one.aux_bytes for one in unpacked),
        unread,
        problems,
    )


def _pipe(file: memoryview) -> PerfData:
    """What `perf record -o -` wrote: all that a header has comes as records."""
    unpacked = unpack(file[_PIPE_HEADER:], _PIPE_HEADER)
    events = [
        EventDesc(
            next((unpacked.names[id] for id in ids if id in unpacked.names), ""),
            attr,
            {-1: ids},
            None,
        )
        for attr, ids in unpacked.attrs
    ]
    return PerfData(
        events, unpacked.data, 0, unpacked.features, unpacked.aux_bytes, unpacked.unread
    )


def files_of(path: str) -> tuple[str, list[str]]:
    """The file with the header, and those that hold more records: `perf record --threads` writes a
    directory.

    Raises:
        UsageError: a directory that perf did not write.
    """
    if not os.path.isdir(path):
        return path, []
    names = os.listdir(path)
    if "data" not in names:
        raise UsageError(f"{path} is a directory without a file data: perf record did not write it")
    parts = sorted(
        (name for name in names if re.fullmatch(r"data\.[0-9]+", name)),
        key=lambda name: int(name.partition(".")[2]),
    )
    return os.path.join(path, "data"), [os.path.join(path, name) for name in parts]


def read(path: str) -> PerfData:
    """A file, or a directory of `perf record --threads`, by its name.

    Raises:
        DataError: no perf.data file, or a broken one.
        UsageError: a directory that perf did not write.
        OSError: it cannot be read.
    """
    contents = []
    header, parts = files_of(path)
    for name in (header, *parts):
        with open(name, "rb") as file:
            contents.append(memoryview(file.read()))
    with named(path):
        return parse(contents[0], contents[1:])


@contextmanager
def named(path: str) -> Iterator[None]:
    """Have what is wrong with a file's bytes name the file."""
    try:
        yield
    except DataError as error:
        number = error.errno or errno.EBADMSG
        raise DataError(f"{path}: {error}", error.offset, number, hint=error.hint) from error
