"""The one way from what a reading command is given to the data: a file, standard input, or what a
recording holds now. Does without the extra `analysis`."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from perfkeep.client.recording import infos
from perfkeep.client.snapshot import Progress, take
from perfkeep.errors import BrokerError, DataError, PerfkeepError, UsageError
from perfkeep.formats import perf_data
from perfkeep.formats.perf_data import PerfData
from perfkeep.formats.perf_data.coverage import CpuCoverage
from perfkeep.formats.perf_data.reader import named
from perfkeep.units import format_duration

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
        with read_as_file(source):
            return perf_data.read(source)
    try:
        with take(source, None, progress=progress) as snapshot, snapshot.open() as file:
            data = perf_data.parse(memoryview(file.read()))
            data.problems.extend(uneven(snapshot.coverage.cpus))
            return data
    except BrokerError as error:
        if error.errno != errno.ENOENT:
            raise
        raise PerfkeepError(
            errno.ENOENT,
            f"there is neither a file nor a recording called {source!r}",
            hint=error.hint,
        ) from error


def uneven(cpus: list[CpuCoverage]) -> list[str]:
    """A sentence if full rings reach back to different times, so that shares of CPUs are too."""
    begins = {cpu.first_ns: cpu for cpu in cpus if cpu.first_ns is not None}
    ends = [cpu.last_ns for cpu in cpus if cpu.last_ns is not None]
    full = [first for first, cpu in begins.items() if cpu.wrapped]
    if not full or (max(full) - min(begins)) * 10 <= max(ends) - min(begins):
        return []
    short, long = begins[max(full)], begins[min(begins)]
    return [
        f"the ring of CPU {short.cpu} holds the last {format_duration(max(ends) - max(full))}, that of "
        f"CPU {long.cpu} {format_duration(max(ends) - min(begins))}: shares are of all that is there"
    ]


@contextmanager
def read_as_file(source: str) -> Iterator[None]:
    """Have the error about a file's bytes name the recording that the file hides."""
    try:
        yield
    except DataError as error:
        if "/" in source or error.hint or not _is_recording(source):
            raise
        hint = f"the recording {source} is read from a folder that has no file of this name"
        raise DataError(str(error), error.offset, error.errno or 0, hint=hint) from error


def _is_recording(name: str) -> bool:
    try:
        return any(info.name == name for info in infos())
    except OSError:
        return False


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
