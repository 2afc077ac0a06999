"""The code that the kernel maps into every process, [vdso]: no file has it, but this process does."""

from __future__ import annotations

import io
import os
import re

from perfkeep.errors import DataError
from perfkeep.symbols.elf import Image

NAME = "[vdso]"
_MAPPING = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) .*\[vdso\]$", re.M)
_MOST = 1 << 20


def vdso() -> Image | None:
    """Of the kernel that runs now; None: it has none, or it cannot be read."""
    try:
        with open("/proc/self/maps", "rb") as maps, open("/proc/self/mem", "rb", 0) as memory:
            found = _MAPPING.search(maps.read())
            if found is None:
                return None
            start, end = (int(one, 16) for one in found.groups())
            return Image(io.BytesIO(os.pread(memory.fileno(), min(end - start, _MOST), start)))
    except (OSError, DataError):
        return None
