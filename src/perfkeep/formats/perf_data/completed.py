"""Completes a perf.data file of stock perf whose events are persistent ones.

To stock perf a persistent event is one of a PMU that it knows nothing else of. Its file says
so: it has the right records, but neither the events' real names nor the formats of tracepoints.

    header │ ids │ attrs │ data │ table │ features
    ├──── as it is, but for attrs ────┤ anew: names grow, and formats are added

The data stays where it was, and so what points into it (ids, the index of AUX data) stays right.
Records are not looked at: nothing in them says what kind of event wrote them.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, NamedTuple

from perfkeep.abi.perf_data import HEADER, MAGIC, MAGIC_SWAPPED, SECTION, Feature
from perfkeep.abi.perf_event import ATTR_SIZE_VER0, PERF_TYPE_PERSISTENT, Attr
from perfkeep.errors import DataError
from perfkeep.formats.perf_data.event import EventDesc
from perfkeep.formats.perf_data.features import string
from perfkeep.formats.perf_data.tracing import tracing_data, with_tracepoints

Progress = Callable[[int, int], None]

_PIPE_HEADER_SIZE = 16
_CHUNK = 1 << 20
_MOST_EVENTS = 1 << 16
_LONGEST_ATTR = 1 << 12

# In struct perf_event_attr, what says which event it is: type, config, bp_type and config1,
# config2, config3. An attr ends before some of them when the perf that wrote it was older.
_IDENTITY = ((0, 4), (8, 16), (52, 64), (64, 72), (128, 136))


class Part(NamedTuple):
    """A piece of a file: struct perf_file_section."""

    at: int
    size: int

    @property
    def end(self) -> int:
        return self.at + self.size


def persistent_id(attr: bytes) -> int | None:
    """The id that an attr asks for when its event is a persistent one."""
    type, _, config = struct.unpack_from("=IIQ", attr)
    return config if type == PERF_TYPE_PERSISTENT else None


def with_identity(attr: bytes, real: Attr) -> bytes:
    """An attr of any size, made one of the real event; how it is recorded stays as it is."""
    size = struct.unpack_from("=I", attr, 4)[0] or ATTR_SIZE_VER0
    made, source = bytearray(attr), real.pack()
    for start, end in _IDENTITY:
        if end <= min(size, len(attr)):
            made[start:end] = source[start:end]
    return bytes(made)


class StockFile:
    """A file that `perf record` wrote, with persistent events among others.

    Args:
        source: a regular file, open as long as this is used.

    Attributes:
        persistent: the ids of its persistent events, each once, in the file's order.

    Raises:
        UsageError: written to a pipe, or by a machine of the other byte order.
        DataError: no perf.data file, one that was not finished, or a broken one.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._length = source.seek(0, os.SEEK_END)
        self._header = _header(self._read(Part(0, min(self._length, HEADER.size))))
        _, _, self._each, *places, _, _, self._bitmap = self._header
        self._attrs, self._data = Part(*places[:2]), Part(*places[2:])
        self._check_places()
        self._features = self._read_table()
        attrs = [persistent_id(attr) for attr in self._entries()]
        self.persistent = list(dict.fromkeys(id for id in attrs if id is not None))

    # --- where what is ------------------------------------------------------------------------

    def _check_places(self) -> None:
        if not self._data.size:
            raise DataError("this perf.data was not finished: perf record has been killed", 40)
        self._check(self._data, self._length, "the data")
        self._check(self._attrs, self._data.at, "the attrs")
        if self._attrs.at < HEADER.size:
            raise DataError(f"this perf.data is broken: its attrs begin at {self._attrs.at}", 24)
        count, left = divmod(self._attrs.size, max(self._each, 1))
        room = self._each - SECTION.size
        if not ATTR_SIZE_VER0 <= room <= _LONGEST_ATTR or left or count > _MOST_EVENTS:
            raise DataError(
                f"this perf.data is broken: {self._attrs.size} bytes of attrs, each of "
                f"{self._each}, make no sense",
                16,
            )
        for entry in self._entries():
            # Their offsets stay, so they must lie in the part that stays.
            ids = Part(*SECTION.unpack_from(entry, room))
            self._check(ids, self._data.end, "the ids of an event")

    def _check(self, part: Part, limit: int, what: str) -> None:
        if part.end > limit:
            raise DataError(
                f"this perf.data is cut off or broken: {what} should lie at {part.at}, "
                f"{part.size} bytes long, and there is room up to {limit}",
                part.at,
            )

    def _read_table(self) -> dict[int, Part]:
        bits = int.from_bytes(self._bitmap, "little")
        numbers = [number for number in range(256) if bits >> number & 1]
        table = Part(self._data.end, SECTION.size * len(numbers))
        self._check(table, self._length, "the table of features")
        parts = [Part(*pair) for pair in SECTION.iter_unpack(self._read(table))]
        for number, part in zip(numbers, parts, strict=True):
            self._check(part, self._length, f"feature {number}")
        if sum(part.size for part in parts) > self._length - table.end:
            raise DataError("this perf.data is broken: its features overlap", table.at)
        return dict(zip(numbers, parts, strict=True))

    def _entries(self) -> Iterator[bytes]:
        """Each attr, with the place of its ids behind it."""
        data = self._read(self._attrs)
        return (data[at : at + self._each] for at in range(0, len(data), self._each))

    def _read(self, part: Part) -> bytes:
        self._source.seek(part.at)
        data = self._source.read(part.size)
        if len(data) != part.size:
            raise _shrunk(part.at + len(data))
        return data

    # --- writing ------------------------------------------------------------------------------

    def write_completed(
        self, out: BinaryIO, known: Mapping[int, EventDesc], progress: Progress | None = None
    ) -> None:
        """Write the file again, with persistent events as the ones that they really are.

        Args:
            out: at its beginning; written from front to back.
            known: of each id in `persistent`, the real event; its `ids` are not used.
            progress: told (bytes copied, bytes to copy) of the data as it goes.

        Raises:
            DataError: a feature that must be changed is broken; nothing was written then.
            OSError: of reading or writing.
        """
        changed = self._changed(known)
        numbers = sorted(self._features.keys() | changed.keys())
        bitmap = sum(1 << number for number in numbers).to_bytes(32, "little")
        attrs = b"".join(self._completed(entry, known) for entry in self._entries())
        out.write(HEADER.pack(*self._header[:-1], bitmap))
        self._copy(Part(HEADER.size, self._attrs.at - HEADER.size), out)
        out.write(attrs)
        self._copy(Part(self._attrs.end, self._data.at - self._attrs.end), out)
        self._copy(self._data, out, progress)
        self._write_features(out, numbers, changed)

    def _completed(self, entry: bytes, known: Mapping[int, EventDesc]) -> bytes:
        id, room = persistent_id(entry), self._each - SECTION.size
        return entry if id is None else with_identity(entry[:room], known[id].attr) + entry[room:]

    def _changed(self, known: Mapping[int, EventDesc]) -> dict[int, bytes]:
        """The features that cannot stay as they are, and those that are new."""
        found: dict[int, bytes] = {}
        if Feature.EVENT_DESC in self._features:
            found[Feature.EVENT_DESC] = _described(
                self._read(self._features[Feature.EVENT_DESC]), known
            )
        used = [known[id].tracepoint for id in self.persistent]
        tracepoints = [tracepoint for tracepoint in used if tracepoint]
        if tracepoints and Feature.TRACING_DATA in self._features:
            before = memoryview(self._read(self._features[Feature.TRACING_DATA]))
            found[Feature.TRACING_DATA] = with_tracepoints(before, tracepoints)
        elif tracepoints:
            found[Feature.TRACING_DATA] = tracing_data(tracepoints)
        return found

    def _write_features(
        self, out: BinaryIO, numbers: list[int], changed: Mapping[int, bytes]
    ) -> None:
        at = self._data.end + SECTION.size * len(numbers)
        for number in numbers:
            body = changed.get(number)
            size = self._features[number].size if body is None else len(body)
            out.write(SECTION.pack(at, size))
            at += size
        for number in numbers:
            if number in changed:
                out.write(changed[number])
            else:
                self._copy(self._features[number], out)

    def _copy(self, part: Part, out: BinaryIO, progress: Progress | None = None) -> None:
        self._source.seek(part.at)
        done = 0
        while done < part.size:
            data = self._source.read(min(_CHUNK, part.size - done))
            if not data:
                raise _shrunk(part.at + done)
            out.write(data)
            done += len(data)
            if progress is not None:
                progress(done, part.size)


def _shrunk(at: int) -> DataError:
    return DataError(f"this perf.data was cut off at {at} while it was read", at)


def _header(data: bytes) -> tuple[bytes, int, int, int, int, int, int, int, int, bytes]:
    """The header's fields, as HEADER has them.

    Raises:
        DataError: no perf.data, less than its header, or a kind of file that is not understood
            (EOPNOTSUPP).
    """
    if data[:8] == MAGIC_SWAPPED:
        raise DataError(
            "this perf.data was written by a machine of the other byte order",
            0,
            errno.EOPNOTSUPP,
            hint="run perfkeep convert on a machine of that byte order",
        )
    if data[:8] != MAGIC:
        raise DataError("this is no perf.data file: it does not begin with PERFILE2", 0)
    size = int.from_bytes(data[8:16], sys.byteorder)
    if size == _PIPE_HEADER_SIZE:
        raise DataError(
            "this perf.data was written to a pipe",
            8,
            errno.EOPNOTSUPP,
            hint="perf record -o FILE writes one that can be converted",
        )
    if size != HEADER.size or len(data) < HEADER.size:
        raise DataError(
            f"this perf.data is cut off or broken: its header should have {HEADER.size} bytes, "
            f"says {size}, and the file has {len(data)} for it",
            8,
        )
    return HEADER.unpack(data)


def _described(desc: bytes, known: Mapping[int, EventDesc]) -> bytes:
    """EVENT_DESC with the real events' attrs and names.

    Raises:
        DataError: an event does not fit the section.
    """
    if len(desc) < 8:
        raise DataError(f"this perf.data is broken: {len(desc)} bytes describe its events", 0)
    (count, size), at = struct.unpack_from("=II", desc), 8
    parts = [desc[:8]]
    for _ in range(count):
        name_at = at + size + 4
        if size < ATTR_SIZE_VER0 or name_at + 4 > len(desc):
            raise _no_room(at)
        ids, room = struct.unpack_from("=II", desc, at + size)
        ids_at, end = name_at + 4 + room, name_at + 4 + room + 8 * ids
        if end > len(desc):
            raise _no_room(at)
        attr = desc[at : at + size]
        id = persistent_id(attr)
        if id is None or id not in known:
            parts.append(desc[at:end])
        else:
            attr = with_identity(attr, known[id].attr)
            parts += [attr, struct.pack("=I", ids), string(known[id].name), desc[ids_at:end]]
        at = end
    return b"".join([*parts, desc[at:]])


def _no_room(at: int) -> DataError:
    return DataError("this perf.data is broken: the description of an event does not fit", at)
