"""The plain chain of records in a data section that holds more: what perf wrote to a pipe, compressed
records, AUX data.

Between records of the kernel's there are perf's own, of types from 64 on, some with data behind
them that their size does not count. What the reader needs of them is taken out, and what is
compressed is put in its place:

    HEADER_ATTR        an event and its ids              → events
    HEADER_FEATURE     a feature, in pipe mode           → features
    TRACING_DATA       formats of tracepoints, behind it → feature TRACING_DATA
    EVENT_UPDATE       an event's name                   → events
    HEADER_BUILD_ID    a file's build id                 → feature BUILD_ID
    COMPRESSED, 2      a part of one zstd stream         → its records
    AUXTRACE           data of a PMU, behind it          → left out, and counted
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass, field
from typing import Protocol

from perfkeep import extras
from perfkeep.abi.perf_data import Feature
from perfkeep.abi.perf_event import ATTR_SIZE_VER0, Attr
from perfkeep.abi.records import HEADER_SIZE, USER_TYPE_START, UserRecord
from perfkeep.errors import DataError, PerfkeepError

_HEADER = struct.Struct("=IHH")
_SIZE = struct.Struct("=I")
_LONG = struct.Struct("=Q")
#: perf's own word for a new name of an event.
_UPDATE_NAME = 2
#: A few bytes can say that they are many: no more than so many times as much comes out of them.
_MOST_GROWTH = 1000


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


@dataclass(slots=True)
class Unpacked:
    """
    Attributes:
        data: records only, each beginning at a word.
        attrs: events that the records themselves told of, with their ids.
        names: of events, by one of their ids.
        features: that the records themselves told of.
        aux_bytes: of AUX data that was left out.
        unread: bytes at the end that are no record.
    """

    data: memoryview
    attrs: list[tuple[Attr, list[int]]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    features: dict[Feature | int, memoryview] = field(default_factory=dict)
    aux_bytes: int = 0
    unread: int = 0


def _zstd() -> _Decompressor:
    """
    Raises:
        PerfkeepError: ENOPKG: neither this Python nor an extra has it.
    """
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise extras.missing("backports.zstd", "analysis") from None
    made: _Decompressor = zstd.ZstdDecompressor()
    return made


class _Unpacker:
    def __init__(self, data: memoryview, at: int) -> None:
        self.data = data
        #: Of the data in the file, for messages.
        self.at = at
        self.found = Unpacked(memoryview(b""))
        self._out = bytearray()
        self._stream: _Decompressor | None = None
        #: The end of what was decompressed, if it ends within a record.
        self._rest = b""

    def run(self) -> Unpacked:
        end = self._walk(self.data, self.at, False)
        self.found.unread = len(self.data) - end + len(self._rest)
        self.found.data = memoryview(bytes(self._out))
        return self.found

    def _walk(self, data: memoryview, base: int, inner: bool) -> int:
        """Copies plain records; gives the end of the last whole one."""
        at = plain = 0
        while len(data) - at >= HEADER_SIZE:
            kind, _, size = _HEADER.unpack_from(data, at)
            if size < HEADER_SIZE or size > len(data) - at or not kind:
                break
            if kind < USER_TYPE_START and size % 8 == 0:
                at += size
                continue
            self._out += data[plain:at]
            if kind < USER_TYPE_START:
                break  # the kernel writes no such record
            behind = (
                0 if inner else self._own(kind, data[at : at + size], data[at + size :], base + at)
            )
            if behind > len(data) - at - size:
                raise DataError(f"{behind} bytes behind a record do not fit the file", base + at)
            at += size + behind
            plain = at
        self._out += data[plain:at]
        return at

    def _own(self, kind: int, record: memoryview, rest: memoryview, at: int) -> int:
        """One of perf's own records; gives how many bytes lie behind it."""
        if kind in (UserRecord.COMPRESSED, UserRecord.COMPRESSED2):
            self._decompress(kind, record, at)
        elif kind == UserRecord.HEADER_ATTR:
            self._attr(record, at)
        elif kind == UserRecord.EVENT_UPDATE and len(record) > 24:
            what, id = struct.unpack_from("=QQ", record, 8)
            if what == _UPDATE_NAME:
                name = bytes(record[24:]).split(b"\0")[0]
                self.found.names[id] = name.decode(errors="replace")
        elif kind == UserRecord.HEADER_BUILD_ID:
            # The section of a file is a chain of just these records.
            before = self.found.features.get(Feature.BUILD_ID, b"")
            self.found.features[Feature.BUILD_ID] = memoryview(bytes(before) + bytes(record))
        elif kind == UserRecord.HEADER_FEATURE and len(record) >= 16:
            (number,) = _LONG.unpack_from(record, 8)
            known = number in Feature._value2member_map_
            self.found.features[Feature(number) if known else number] = record[16:]
        elif kind == UserRecord.HEADER_TRACING_DATA and len(record) >= 12:
            (size,) = _SIZE.unpack_from(record, 8)
            self.found.features[Feature.TRACING_DATA] = rest[:size]
            return int(size) + -int(size) % 8
        elif kind == UserRecord.AUXTRACE and len(record) >= 16:
            (size,) = _LONG.unpack_from(record, 8)
            self.found.aux_bytes += size
            return int(size)
        return 0

    def _attr(self, record: memoryview, at: int) -> None:
        size = (
            _SIZE.unpack_from(record, 12)[0] if len(record) >= HEADER_SIZE + ATTR_SIZE_VER0 else 0
        )
        if size < ATTR_SIZE_VER0 or HEADER_SIZE + size > len(record):
            raise DataError(f"an attr of {size} bytes does not fit its record", at)
        ids = record[HEADER_SIZE + size :]
        words = ids[: len(ids) // 8 * 8].cast("Q").tolist()
        self.found.attrs.append(
            (Attr.unpack(bytes(record[HEADER_SIZE : HEADER_SIZE + size])), words)
        )

    def _decompress(self, kind: int, record: memoryview, at: int) -> None:
        packed = bytes(record[HEADER_SIZE:])
        if kind == UserRecord.COMPRESSED2:  # says how much of it counts
            size = _LONG.unpack_from(packed)[0] if len(packed) >= 8 else 0
            packed = packed[8 : 8 + size]
        self._stream = self._stream or _zstd()
        most = _MOST_GROWTH * len(packed) + (1 << 20)
        try:
            whole = self._stream.decompress(packed, most)
        except (PerfkeepError, MemoryError):
            raise
        except Exception as error:  # ZstdError, of whichever of the two modules
            raise DataError(f"what is compressed cannot be read: {error}", at) from error
        if len(whole) >= most:
            raise DataError(f"{len(packed)} bytes stand for more than {most}", at)
        some = memoryview(self._rest + whole)
        self._rest = bytes(some[self._walk(some, at, True) :])


def unpack(data: memoryview, at: int) -> Unpacked:
    """
    Args:
        at: of the data in the file, for messages.

    Raises:
        DataError: a record that does not fit; what is compressed is damaged.
        PerfkeepError: ENOPKG: nothing here can decompress it.
    """
    return _Unpacker(data, at).run()
