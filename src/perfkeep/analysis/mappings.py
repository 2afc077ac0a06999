"""Which files processes had where, at each moment.

A process that was forked has what its parent had then. Of two mappings that overlap the later one
counts; what a process had before it called exec stays, where nothing else comes to lie, as samples
within exec still name it. Records that a snapshot writes of what it found in /proc carry no time,
and count from the beginning.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfkeep.abi.records import MISC_COMM_EXEC, MISC_MMAP_BUILD_ID, Record
from perfkeep.records.columns import Rows
from perfkeep.records.timeline import Timeline

Ints = NDArray[Any]

_MMAP = struct.Struct("=IIQQQ")
_MMAP2_TAIL = struct.Struct("=B3x20s")
_FORK = struct.Struct("=IIII")
_COMM = struct.Struct("=II")
_MISC = struct.Struct("=H")
_BUILD_ID_SIZES = (16, 20)
_KERNEL_PID = 0xFFFFFFFF
_start, _end = attrgetter("start"), attrgetter("end")


class Mapping(NamedTuple):
    start: int
    end: int
    offset: int
    path: str
    build_id: str

    def offset_of(self, address: int) -> int:
        """Where in the file that address lies."""
        return (address - self.start + self.offset) % 2**64


class Space(NamedTuple):
    """What one process had mapped, from one exec to the next.

    Attributes:
        mappings: by their addresses; none overlaps another.
    """

    pid: int
    mappings: list[Mapping]


class Mappings:
    """
    Args:
        found: (type, bytes, ns) of records in the order of time.

    Attributes:
        kernel_text: where the kernel's own text begins; None: the file does not say.
        spaces: as `at` numbers them; the first is that of a process of which nothing is known.
    """

    def __init__(self, found: Iterable[tuple[int, memoryview, int]]) -> None:
        self.kernel_text: int | None = None
        self.spaces = [Space(-1, [])]
        self._now: dict[int, int] = {}
        self._changes: list[tuple[int, int, int]] = [(-1, 0, 0)]
        for kind, record, time in found:
            if kind == Record.FORK and len(record) >= 24:
                pid, parent, _, _ = _FORK.unpack_from(record, 8)
                if pid != parent:
                    self._begin(pid, time, self._of(parent))
            elif kind == Record.COMM and len(record) > 16:
                if _MISC.unpack_from(record, 4)[0] & MISC_COMM_EXEC:
                    pid, _ = _COMM.unpack_from(record, 8)
                    self._begin(pid, time, self._of(pid))
            elif kind in (Record.MMAP, Record.MMAP2) and len(record) >= 48:
                self._add(kind, record)

    def _of(self, pid: int) -> list[Mapping]:
        return self.spaces[self._now.get(pid, 0)].mappings

    def _begin(self, pid: int, time: int, mappings: list[Mapping]) -> list[Mapping]:
        self._now[pid] = len(self.spaces)
        self._changes.append((pid, time, len(self.spaces)))
        self.spaces.append(Space(pid, list(mappings)))
        return self.spaces[-1].mappings

    def _add(self, kind: int, record: memoryview) -> None:
        pid, _, start, length, offset = _MMAP.unpack_from(record, 8)
        text_at, build_id = 40, ""
        if kind == Record.MMAP2:
            text_at = 72
            if _MISC.unpack_from(record, 4)[0] & MISC_MMAP_BUILD_ID and len(record) >= 72:
                size, raw = _MMAP2_TAIL.unpack_from(record, 40)
                # Linux sets the mark also where there is none, see client.sideband: then this is
                # the device and the inode.
                build_id = raw[:size].hex() if size in _BUILD_ID_SIZES else ""
        path = bytes(record[text_at:]).split(b"\0")[0].decode(errors="surrogateescape")
        if pid == _KERNEL_PID:
            if path.startswith("[kernel.kallsyms]"):
                self.kernel_text = offset or start
            return
        # A file may say any length.
        new = Mapping(start, min(start + length, 2**64 - 1), offset, path, build_id)
        there = self._of(pid) if pid in self._now else self._begin(pid, 0, [])
        first = bisect_right(there, start, key=_end)
        there[first : bisect_left(there, new.end, first, key=_start)] = [new]

    def of(self, rows: Rows) -> Ints:
        """For each of these samples the number of its address space."""
        pid, time = rows.get("pid"), rows.get("time")
        if pid is None:
            return np.zeros(len(rows), "i8")
        return self.at(pid.values.astype("i8"), None if time is None else time.values)

    def at(self, pids: Ints, times: Ints | None) -> Ints:
        """For each moment of a process the number of its address space.

        Args:
            pids: int64.
            times: ns, as long as `pids`; None: nobody knows when it was.
        """
        return np.maximum(self._timeline.values(pids, times), 0)

    @cached_property
    def _timeline(self) -> Timeline:
        return Timeline(self._changes)
