"""What a just-in-time compiler says of the code that it made: /tmp/perf-PID.map, a line for each
function, START SIZE NAME, the numbers in hex. Needs numpy.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from typing import BinaryIO

import numpy as np

from perfkeep.symbols.table import SymbolTable

_LINE = re.compile(rb"^(?:0x)?([0-9a-f]{1,16}) (?:0x)?([0-9a-f]{1,16}) ([^\n\0]+)$", re.M)
_MOST = 16 << 20


def parse(text: bytes) -> SymbolTable:
    """Lines that are none are left out; of two functions at one place the later counts."""
    found: dict[int, tuple[int, bytes]] = {}
    for line in _LINE.finditer(text):
        start, size, name = line.groups()
        found[int(start, 16)] = int(size, 16), name
    return table(found)


def table(found: dict[int, tuple[int, bytes]]) -> SymbolTable:
    """
    Args:
        found: by where it begins, how large each function is and what it is called.
    """
    names, places, at = [], [], 0
    for _, name in found.values():
        names.append(name)
        places.append(at)
        at += len(name) + 1
    return SymbolTable(
        np.array(list(found), "u8"),
        np.array([size for size, _ in found.values()], "u8"),
        b"".join(name + b"\0" for name in names),
        np.array(places, "i8"),
    )


def path_of(pid: int) -> str:
    return f"/tmp/perf-{pid}.map"


def of_process(pid: int) -> SymbolTable | None:
    """Of a process that lives or has ended; None: it wrote none, or somebody else did.

    A process in a container writes it there, under the pid that it has there.
    """
    places = [path_of(pid)]
    with suppress(OSError, ValueError, StopIteration):
        with open(f"/proc/{pid}/status") as file:
            line = next(line for line in file if line.startswith("NSpid:"))
        places.insert(0, f"/proc/{pid}/root{path_of(int(line.split()[-1]))}")
    for place in places:
        with suppress(OSError):
            return parse(_read(place, pid))
    return None


def _read(path: str, pid: int) -> bytes:
    """
    Raises:
        OSError: it is not there, no plain file, of somebody else, or too large.
    """
    with trusted_file(path, pid) as file:
        text = file.read(_MOST + 1)
    if len(text) > _MOST:
        raise OSError(path)
    return text


def trusted_file(path: str, pid: int) -> BinaryIO:
    """What a process wrote of itself: its user's, ours or root's.

    Raises:
        OSError: it is not there, no plain file, or of somebody else.
    """
    trusted = {0, os.geteuid()}
    with suppress(OSError):
        trusted.add(os.stat(f"/proc/{pid}").st_uid)
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    file = os.fdopen(os.open(path, flags), "rb")
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_uid not in trusted:
        file.close()
        raise PermissionError(path)
    return file
