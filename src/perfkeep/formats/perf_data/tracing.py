"""The TRACING_DATA feature: how tracepoint fields lie, in trace-cmd's format, version 0.6."""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator, Sequence

from perfkeep.errors import DataError

#: (system, name, id, text of the format file)
Tracepoint = tuple[str, str, int, str]

_MAGIC = bytes([23, 8, 68]) + b"tracing"
_VERSION = b"0.6\0"
_ID = re.compile(r"^ID: ([0-9]{1,10})$", re.M)
_NAME = re.compile(r"^name: (\S+)$", re.M)
_STRING = re.compile(r'^0x([0-9a-f]{1,16}) : "(.*)"$', re.M)

# What a 64-bit kernel says in events/header_page and events/header_event. Readers of perf.data
# parse them, and use neither: perf's rings are not ftrace's.
_HEADER_PAGE = (
    b"\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
    b"\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n"
    b"\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
    b"\tfield: char data;\toffset:16;\tsize:4080;\tsigned:1;\n"
)
_HEADER_EVENT = (
    b"# compressed entry header\n"
    b"\ttype_len    :    5 bits\n"
    b"\ttime_delta  :   27 bits\n"
    b"\tarray       :   32 bits\n"
    b"\n"
    b"\tpadding     : type == 29\n"
    b"\ttime_extend : type == 30\n"
    b"\ttime_stamp : type == 31\n"
    b"\tdata max type_len  == 28\n"
)


def _sized(data: bytes) -> bytes:
    return struct.pack("=Q", len(data)) + data


def tracing_data(tracepoints: Sequence[Tracepoint]) -> bytes:
    """The section for these tracepoints: (system, name, id, text of the format file)."""
    little = struct.pack("=H", 1)[0] == 1
    parts = [_MAGIC, _VERSION, bytes([not little, struct.calcsize("P")])]
    parts.append(struct.pack("=I", mmap.PAGESIZE))
    parts += [b"header_page\0", _sized(_HEADER_PAGE), b"header_event\0", _sized(_HEADER_EVENT)]
    parts.append(struct.pack("=I", 0))  # ftrace's own events
    systems = _systems(tracepoints)
    parts += [struct.pack("=I", len(systems)), *systems]
    parts.append(struct.pack("=I", 0))  # kallsyms: the build ids lead to them
    parts.append(struct.pack("=I", 0))  # printk formats
    parts.append(struct.pack("=Q", 0))  # saved command lines: there are COMM records
    return b"".join(parts)


def _systems(tracepoints: Sequence[Tracepoint]) -> list[bytes]:
    """Each system with the formats of its tracepoints."""
    systems: dict[str, dict[str, str]] = {}
    for system, name, _, text in tracepoints:
        systems.setdefault(system, {})[name] = text
    return [
        system.encode()
        + b"\0"
        + struct.pack("=I", len(formats))
        + b"".join(_sized(text.encode()) for text in formats.values())
        for system, formats in systems.items()
    ]


class _Cursor:
    """Reads one thing after the other.

    Raises:
        DataError: what should come does not fit.
    """

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise DataError(f"{size} bytes of tracing data do not fit their section", self.at)
        self.at += size
        return bytes(self.data[self.at - size : self.at])

    def number(self, format: str) -> int:
        return int(struct.unpack(format, self.take(struct.calcsize(format)))[0])

    def string(self) -> str:
        found = bytearray()
        while (byte := self.take(1)) != b"\0":
            found += byte
        return found.decode(errors="replace")

    def sized(self) -> bytes:
        return self.take(self.number("=Q"))


def parse_tracing_data(data: memoryview) -> list[Tracepoint]:
    """The tracepoints of a TRACING_DATA section: (system, name, id, text of the format file).

    Raises:
        DataError: another version, or broken; the offset is the one in the section.
    """
    return list(_formats(_at_systems(data)))


def parse_strings(data: memoryview) -> dict[int, str]:
    """Constant strings of the kernel that tracepoints name by their addresses.

    Raises:
        DataError: another version, or broken; the offset is the one in the section.
    """
    cursor = _at_systems(data)
    for _ in _formats(cursor):
        pass
    cursor.take(cursor.number("=I"))  # kallsyms
    text = cursor.take(cursor.number("=I")).decode(errors="replace")
    return {
        int(address, 16): found.replace("\\n", "").replace('\\"', '"')
        for address, found in _STRING.findall(text)
    }


def with_tracepoints(data: memoryview, added: Sequence[Tracepoint]) -> bytes:
    """A section as it is, and further tracepoints behind its own; those that it has are left out.

    A system may stand in it twice: readers take formats one by one.

    Raises:
        DataError: another version, or broken; the offset is the one in the section.
    """
    cursor = _at_systems(data)
    start = cursor.at
    known = {id for *_, id, _ in _formats(cursor)}
    (count,) = struct.unpack_from("=I", data, start)
    systems = _systems([one for one in added if one[2] not in known])
    return b"".join(
        [
            data[:start],
            struct.pack("=I", count + len(systems)),
            data[start + 4 : cursor.at],
            *systems,
            data[cursor.at :],
        ]
    )


def _at_systems(data: memoryview) -> _Cursor:
    """A cursor behind the header, at the number of systems.

    Raises:
        DataError: another version, or broken.
    """
    cursor = _Cursor(data)
    if cursor.take(len(_MAGIC)) != _MAGIC or cursor.string() not in ("0.5", "0.6"):
        raise DataError("this tracing data is not of version 0.5 or 0.6", 0)
    cursor.take(2 + 4)  # byte order, size of a long, size of a page
    for _ in ("header_page", "header_event"):
        cursor.string()
        cursor.sized()
    for _ in range(cursor.number("=I")):
        cursor.sized()
    return cursor


def _formats(cursor: _Cursor) -> Iterator[Tracepoint]:
    for _ in range(cursor.number("=I")):
        system = cursor.string()
        for _ in range(cursor.number("=I")):
            at, text = cursor.at, cursor.sized().decode(errors="replace")
            id, name = _ID.search(text), _NAME.search(text)
            if id is None or name is None:
                raise DataError(f"a tracepoint of {system} has no name or no ID", at)
            yield system, name[1], int(id[1]), text
