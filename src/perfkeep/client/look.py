"""A file by its name, or what a recording holds now, as tables."""

from __future__ import annotations

import errno
import os

from perfkeep.analysis import data
from perfkeep.analysis.data import Data
from perfkeep.client.snapshot import Progress, take
from perfkeep.errors import BrokerError, UsageError


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


def look(what: str, progress: Progress | None = None) -> Data:
    """
    Args:
        what: a file's name; where there is none, a recording's.
        progress: told (rings done, rings in all) of a recording.

    Raises:
        UsageError: ENOENT: neither.
        DataError: no perf.data file, or a broken one.
        BrokerError: EACCES: not yours to read.
    """
    if os.path.exists(what) or "/" in what:
        return read(what)
    try:
        with take(what, None, progress=progress) as snapshot:
            return snapshot.tables(kallsyms)
    except BrokerError as error:
        if error.errno != errno.ENOENT:
            raise
        raise UsageError(
            f"there is neither a file nor a recording called {what!r}; perfkeep ls shows the "
            "recordings",
            errno.ENOENT,
        ) from error
