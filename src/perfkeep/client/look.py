"""A file by its name, or what a recording holds now, as tables."""

from __future__ import annotations

import errno
import os

from perfkeep.analysis.data import Data, read
from perfkeep.client.snapshot import Progress, take
from perfkeep.errors import BrokerError, UsageError


def kallsyms() -> bytes:
    """Of the kernel that runs now; nothing where it may not be read."""
    try:
        with open("/proc/kallsyms", "rb") as file:
            return file.read()
    except OSError:
        return b""


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
        return read(what, kallsyms)
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
