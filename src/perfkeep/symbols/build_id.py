"""The build id of an ELF file: the NT_GNU_BUILD_ID note that its linker left."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

_NOTE = struct.Struct("=III")
_NT_GNU_BUILD_ID = 3
_PT_NOTE = 4
_MOST_NOTES = 1 << 16
# Of one program header; the kernel takes 56 or 32 only.
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
        read: gives so many bytes from there on, or fewer where the file ends.
    """
    head = read(4096, 0)
    if len(head) < 64 or head[:4] != b"\x7fELF" or head[5] not in (1, 2):
        return None
    order, wide = "<" if head[5] == 1 else ">", head[4] == 2
    if wide:
        (phoff,) = struct.unpack_from(order + "Q", head, 32)
        size, count = struct.unpack_from(order + "HH", head, 54)
    else:
        (phoff,) = struct.unpack_from(order + "I", head, 28)
        size, count = struct.unpack_from(order + "HH", head, 42)
    if not (56 if wide else 32) <= size <= _MOST_SIZE:
        return None
    table = read(size * count, phoff)
    if len(table) < size * count:
        return None
    for at in range(0, size * count, size):
        if struct.unpack_from(order + "I", table, at)[0] != _PT_NOTE:
            continue
        if wide:
            (offset,) = struct.unpack_from(order + "Q", table, at + 8)
            (length,) = struct.unpack_from(order + "Q", table, at + 32)
        else:
            (offset,) = struct.unpack_from(order + "I", table, at + 4)
            (length,) = struct.unpack_from(order + "I", table, at + 16)
        found = in_notes(read(min(length, _MOST_NOTES), offset))
        if found:
            return found
    return None
