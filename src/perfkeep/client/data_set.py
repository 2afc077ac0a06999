"""Make data sets with what this machine knows, from files, snapshots and recordings alike.

analysis.data.Data is pure: without the symbols of this machine's kernel it names no kernel frame. So
every verb and every library function makes its data sets here.
"""

from __future__ import annotations

from collections.abc import Callable

from perfkeep.analysis import data
from perfkeep.analysis.data import Data
from perfkeep.analysis.symbolize import Images
from perfkeep.formats.perf_data import PerfData

Kallsyms = Callable[[], bytes]


def kallsyms() -> bytes:
    """/proc/kallsyms of the running kernel; empty where it may not be read."""
    try:
        with open("/proc/kallsyms", "rb") as file:
            return file.read()
    except OSError:
        return b""


def read(path: str) -> Data:
    """Read a perf.data file, of perfkeep or of stock perf. Functions of the kernel have names if it is
    the one that runs now.

    Raises:
        DataError: it is none, or a broken one.
        UsageError: a directory that perf did not write.
        OSError: it cannot be read.
    """
    return data.read(path, kallsyms)


def data_set(file: PerfData, symbols: Kallsyms = kallsyms, images: Images | None = None) -> Data:
    """The same of a file that is parsed already.

    Args:
        symbols: reads /proc/kallsyms, for who does it once for many data sets.
        images: the files whose symbols have been read, likewise.
    """
    return Data(file, symbols, images)
