"""The vdso: code of the kernel that every process has mapped. No file holds it, so what this process
has is read, as perf does. Needs numpy.
"""

from __future__ import annotations

import io
import os
import re

from perfkeep.errors import DataError
from perfkeep.symbols.build_id import in_notes, of_bytes
from perfkeep.symbols.elf import Image

#: What the kernel calls it in mappings.
NAME = "[vdso]"
_LINE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) .*\[vdso\]$", re.MULTILINE)


def vdso(address: int, build_id: str = "", kernel_build_id: str = "") -> Image:
    """Of the kernel that runs now.

    Args:
        address: where a process had it: those of 32 bits have another one, which is not here.
        build_id: in hex; "": not known.
        kernel_build_id: of the kernel that it is part of, in hex; asked where `build_id` is not
            known; "": not known either, whatever is here is taken.

    Raises:
        DataError: there is none here, or it is another one.
        OSError: it cannot be read.
    """
    start, data = _own()
    if (address >> 32 == 0) != (start >> 32 == 0):
        raise DataError("a process of another width has another vdso", 0)
    if build_id:
        there = of_bytes(data)
    else:
        build_id, there = kernel_build_id, _kernel() if kernel_build_id else b""
    if (there or b"").hex() != build_id:
        raise DataError("the vdso of this kernel is another one than that of then", 0)
    return Image(io.BytesIO(data))


def _own() -> tuple[int, bytes]:
    """Where this process has it, and what it is."""
    with open("/proc/self/maps", "rb") as file:
        found = _LINE.search(file.read())
    if found is None:
        raise DataError("this process has no vdso", 0)
    start, end = (int(one, 16) for one in found.groups())
    fd = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return start, os.pread(fd, end - start, start)
    finally:
        os.close(fd)


def _kernel() -> bytes | None:
    with open("/sys/kernel/notes", "rb") as file:
        return in_notes(file.read())
