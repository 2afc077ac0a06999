"""The one way from what a reading command is given to the data: a file, standard input, or what a
recording holds now. Does without the extra `analysis`."""

from __future__ import annotations

import errno
import os

from perfkeep.client.snapshot import Progress, take
from perfkeep.errors import BrokerError, PerfkeepError, UsageError
from perfkeep.formats import perf_data
from perfkeep.formats.perf_data import PerfData
from perfkeep.formats.perf_data.reader import named

#: A source that is standard input.
STDIN = "-"


def parsed(source: str, progress: Progress | None = None) -> PerfData:
    """The perf.data that a command's FILE|NAME|- stands for, parsed and no more.

    `-` is standard input. What contains a slash, or exists, is a file; anything else is the name of
    a recording, of which a snapshot is taken.

    Args:
        progress: told (rings done, rings in all) of a recording.

    Raises:
        PerfkeepError: ENOENT: neither a file nor a recording.
        UsageError: standard input is a terminal.
        DataError: no perf.data, or a broken one.
        BrokerError: EACCES: not yours to read.
        OSError: the file cannot be read.
    """
    if source == STDIN:
        with named("standard input"):
            return perf_data.parse(memoryview(stdin()))
    if is_file(source):
        return perf_data.read(source)
    try:
        with take(source, None, progress=progress) as snapshot, snapshot.open() as file:
            return perf_data.parse(memoryview(file.read()))
    except BrokerError as error:
        if error.errno != errno.ENOENT:
            raise
        raise PerfkeepError(
            errno.ENOENT,
            f"there is neither a file nor a recording called {source!r}",
            hint=error.hint,
        ) from error


def is_file(source: str) -> bool:
    return "/" in source or os.path.exists(source)


def stdin() -> bytes:
    """All of standard input.

    Raises:
        UsageError: it is a terminal.
    """
    if os.isatty(0):
        raise UsageError("standard input is a terminal, not a perf.data file")
    with open(0, "rb", closefd=False) as file:
        return file.read()
