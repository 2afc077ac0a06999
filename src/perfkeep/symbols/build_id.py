"""The build id of an ELF file: the NT_GNU_BUILD_ID note that its linker left."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

_NOTE = struct.Struct("=III")
_NT_GNU_BUILD_ID = 3
_PT_NOTE = 4
_SHT_NOTE = 7
_MOST_NOTES = 1 << 16
# Of one program or section header.
_MOST_SIZE = 256

_known: dict[tuple[int, int, int, int], bytes | None] = {}


def in_notes(data: bytes) -> bytes | None:
    """The build id among ELF notes, or None. Also reads /sys/kernel/notes."""
    at = 0
    while at + _NOTE.size <= len(data):
        name_size, size, kind = _NOTE.unpack_from(data, at)
        name_at = at + _NOTE.size
        value_at = name_at + (name_size + 3 & ~3)
        if value_at + size > len(data):
            return None
        if kind == _NT_GNU_BUILD_ID and data[name_at : name_at + 4] == b"GNU\0":
            return data[value_at : value_at + size]
        at = value_at + (size + 3 & ~3)
    return None


def of_file(path: bytes, inode: int | None = None) -> bytes | None:
    """The build id of an ELF file, or None: no ELF, no note, or not readable.

    Args:
        inode: what it has to be, if it is the file that is meant.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
        if inode is not None and found.st_ino != inode:
            return None
        key = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
        if key not in _known:
            _known[key] = _find(lambda size, at: os.pread(fd, size, at))
        return _known[key]
    except (OSError, OverflowError):  # a damaged file names places that no file has
        return None
    finally:
        os.close(fd)


def of_bytes(data: bytes) -> bytes | None:
    """The build id of an ELF file in memory, or None."""
    return _find(lambda size, at: data[at : at + size])


def _find(read: Callable[[int, int], bytes]) -> bytes | None:
    """
    Args:
        read: gives so many bytes from an offset on, or fewer where the file ends.
    """
    head = read(4096, 0)
    if len(head) < 64 or head[:4] != b"\x7fELF" or head[5] not in (1, 2):
        return None
    order = "<" if head[5] == 1 else ">"
    # A program that was stripped of its sections has segments; code that `perf inject --jit`
    # writes has sections only.
    for headers in _HEADERS[head[4] == 2]:
        for offset, length in headers.notes(head, order, read):
            found = in_notes(read(min(length, _MOST_NOTES), offset))
            if found:
                return found
    return None


class _Headers(NamedTuple):
    """Program or section headers of one ELF class.

    Attributes:
        at: where the ELF header has their offset.
        word: struct's letter for an offset.
        size_at: where it has the size of one and their number.
        least: bytes of one.
        type_at, offset_at, length_at: within one.
        note: the type of those that hold notes.
    """

    at: int
    word: str
    size_at: int
    least: int
    type_at: int
    offset_at: int
    length_at: int
    note: int

    def notes(
        self, head: bytes, order: str, read: Callable[[int, int], bytes]
    ) -> Iterator[tuple[int, int]]:
        """(offset, length) of each piece of notes."""
        (table_at,) = struct.unpack_from(order + self.word, head, self.at)
        size, count = struct.unpack_from(order + "HH", head, self.size_at)
        if not self.least <= size <= _MOST_SIZE:
            return
        table = read(size * count, table_at)
        if len(table) < size * count:
            return
        for at in range(0, size * count, size):
            if struct.unpack_from(order + "I", table, at + self.type_at)[0] == self.note:
                (offset,) = struct.unpack_from(order + self.word, table, at + self.offset_at)
                (length,) = struct.unpack_from(order + self.word, table, at + self.length_at)
                yield offset, length


#: Elf32_Ehdr, Elf32_Phdr and Elf32_Shdr; and the same of 64 bits.
_HEADERS = (
    (
        _Headers(28, "I", 42, 32, 0, 4, 16, _PT_NOTE),
        _Headers(32, "I", 46, 40, 4, 16, 20, _SHT_NOTE),
    ),
    (
        _Headers(32, "Q", 54, 56, 0, 8, 32, _PT_NOTE),
        _Headers(40, "Q", 58, 64, 4, 24, 32, _SHT_NOTE),
    ),
)
