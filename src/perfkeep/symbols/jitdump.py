"""What a just-in-time compiler says of the code that it made: jit-PID.dump, which it maps so that a
recording tells where the file is. Needs numpy.

Source: tools/perf/Documentation/jitdump-specification.txt of Linux. Lines of source code and how to
unwind are left out.
"""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

from perfkeep.errors import DataError
from perfkeep.symbols.perf_map import table, trusted_file
from perfkeep.symbols.table import SymbolTable

_NAME = re.compile(r"jit-(\d{1,10})\.dump")
_MAGIC = 0x4A695444
_HEADER = struct.Struct("=IIIIIIQQ")
_PREFIX = struct.Struct("=IIQ")
_LOAD = struct.Struct("=IIQQQQ")
_MOVE = struct.Struct("=IIQQQQQ")
_CODE_LOAD, _CODE_MOVE, _CODE_CLOSE = 0, 1, 3
#: Functions, and bytes of a name.
_MOST, _LONGEST = 1 << 20, 4096


def pid_in(path: str) -> int | None:
    """Of the process that wrote a file of this name; None: it is no jitdump's."""
    found = _NAME.fullmatch(path.rpartition("/")[2])
    return int(found[1]) if found else None


def parse(file: BinaryIO, pid: int) -> SymbolTable:
    """Of code at one place the last counts. A file that ends in half a record is read up to there.

    Args:
        file: is read from where it stands.
        pid: of the process that wrote it.

    Raises:
        DataError: it is none, of another machine's byte order, or another process's.
    """
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise DataError("this is no jitdump: it ends in its header", len(head))
    magic, version, size, _, _, of, _, _ = _HEADER.unpack(head)
    if magic != _MAGIC or version != 1 or size < _HEADER.size:
        raise DataError("this is no jitdump of this machine", 0)
    if of != pid:
        raise DataError(f"this jitdump is of process {of}", 20)
    file.seek(size - _HEADER.size, 1)
    found: dict[int, tuple[int, bytes]] = {}
    while len(found) < _MOST and len(prefix := file.read(_PREFIX.size)) == _PREFIX.size:
        kind, length, _ = _PREFIX.unpack(prefix)
        if length < _PREFIX.size or kind == _CODE_CLOSE:
            break
        body = file.read(min(length - _PREFIX.size, _LOAD.size + _LONGEST))
        _take(kind, body, found)
        file.seek(length - _PREFIX.size - len(body), 1)
    return table(found)


def _take(kind: int, body: bytes, found: dict[int, tuple[int, bytes]]) -> None:
    if kind == _CODE_LOAD and len(body) > _LOAD.size:
        _, _, _, address, size, _ = _LOAD.unpack_from(body)
        name, end, _ = body[_LOAD.size :].partition(b"\0")
        if name and end:
            found[address] = size, name
    elif kind == _CODE_MOVE and len(body) >= _MOVE.size:
        _, _, _, old, new, size, _ = _MOVE.unpack_from(body)
        if old in found:
            found[new] = size, found.pop(old)[1]


def read(path: str, pid: int) -> SymbolTable | None:
    """None: it is not there, is none, or somebody else wrote it."""
    try:
        with trusted_file(path, pid) as file:
            return parse(file, pid_in(path) or 0)
    except (OSError, DataError):
        return None
