"""What a reading command is given, as tables."""

from __future__ import annotations

from perfkeep.analysis import data
from perfkeep.analysis.data import Data
from perfkeep.client.snapshot import Progress
from perfkeep.client.sources import STDIN, is_file, parsed


def kallsyms() -> bytes:
    """Of the kernel that runs now; nothing where it may not be read."""
    try:
        with open("/proc/kallsyms", "rb") as file:
            return file.read()
    except OSError:
        return b""


def read(path: str) -> Data:
    """A perf.data file, of perfkeep or of stock perf, with functions of the kernel by their names if
    it is the one that runs now.

    Raises:
        DataError: it is none, or a broken one.
        OSError: it cannot be read.
    """
    return data.read(path, kallsyms)


def look(source: str, progress: Progress | None = None) -> Data:
    """The tables of what `client.sources.parsed` reads, which see."""
    if source != STDIN and is_file(source):
        return read(source)
    return Data(parsed(source, progress), kallsyms)
