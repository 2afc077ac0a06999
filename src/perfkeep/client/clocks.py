"""The clock of a recording beside CLOCK_MONOTONIC, by which spans are asked for.

An event that names no clock, as those of perf record do unless told otherwise, has the times of the
scheduler's clock. No system call reads that one, so an event of the caller's own is made to write a
record.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable
from contextlib import suppress

from perfkeep.abi.perf_event import Attr, Flag, Sample, Software, Type
from perfkeep.abi.records import HEADER_SIZE
from perfkeep.kernel.syscalls import perf_event_open

#: The number of tries, of which the quickest is the most precise.
_TRIES = 5
_WORD = struct.Struct("=Q")
_HEADER = struct.Struct("=IHH")


def ahead_ns(attr: Attr) -> int | None:
    """The lead of an event's clock over CLOCK_MONOTONIC now; None: it cannot be found out."""
    if not attr.flags & Flag.USE_CLOCKID:
        with suppress(OSError):
            return _scheduler_ahead_ns()
        return None
    clock = attr.clockid
    if clock == time.CLOCK_MONOTONIC:
        return 0
    try:
        return _quickest(lambda: time.clock_gettime_ns(clock))
    except OSError:
        return None


def _quickest(read: Callable[[], int]) -> int:
    """The lead of the clock that `read` reads over CLOCK_MONOTONIC."""
    tries = []
    for _ in range(_TRIES):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        moment = read()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        tries.append((after - before, moment - (before + after) // 2))
    return min(tries)[1]


def _scheduler_ahead_ns() -> int:
    """Raises: OSError: the kernel refuses the event or its ring."""
    attr = Attr(
        type=Type.SOFTWARE,
        config=Software.DUMMY,
        sample_type=Sample.TIME,
        flags=Flag.COMM | Flag.SAMPLE_ID_ALL | Flag.EXCLUDE_KERNEL | Flag.EXCLUDE_HV,
    )
    size = 2 * mmap.PAGESIZE
    with (
        perf_event_open(attr, 0, -1) as event,
        mmap.mmap(event.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ) as ring,
        open("/proc/thread-self/comm", "r+b", buffering=0) as comm,
    ):
        name, offset = comm.read().rstrip(b"\n"), mmap.PAGESIZE

        def written() -> int:
            nonlocal offset
            comm.write(name)  # a COMM record, with the name that the thread has already
            _, _, length = _HEADER.unpack_from(ring, offset)
            if length < HEADER_SIZE + _WORD.size:
                raise OSError("the kernel wrote no record")
            offset += length
            return int(_WORD.unpack_from(ring, offset - _WORD.size)[0])

        return _quickest(written)
