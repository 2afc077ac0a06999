"""The files that processes and the kernel had mapped, and their addresses, at each moment.

A process that was forked has what its parent had then. A later mapping replaces what it covers of
earlier ones; what is left of these before and behind it stays. What a process had before it called
exec stays as well, as samples within exec still name it. Records that a snapshot writes of what it
found in /proc carry no time, and count from the beginning.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfkeep.abi.records import (
    MISC_COMM_EXEC,
    MISC_MMAP_BUILD_ID,
    MISC_MMAP_DATA,
    Record,
)
from perfkeep.records.columns import Rows
from perfkeep.records.timeline import Timeline
from perfkeep.records.unseen import is_unseen

Ints = NDArray[Any]

_MMAP = struct.Struct("=IIQQQ")
_BUILD_ID = struct.Struct("=B3x20s")
_INODE = struct.Struct("=IIQ")
_PROTECTION = struct.Struct("=I")
_PROT_EXEC = 4
_FORK = struct.Struct("=IIII")
_COMM = struct.Struct("=II")
_MISC = struct.Struct("=H")
_BUILD_ID_SIZES = (16, 20)
_KERNEL_PID = 0xFFFFFFFF
_start, _end = attrgetter("start"), attrgetter("end")

#: Numbers of address spaces: of a process that nothing is known of, and of the kernel.
UNKNOWN, KERNEL = 0, 1
#: The kernel's name as a mapped file; the name of a symbol follows it in the record.
KERNEL_PATH = "[kernel.kallsyms]"


class Mapping(NamedTuple):
    """
    Attributes:
        build_id: in hex; "": the record does not have it.
        inode, device: of the file, the latter as os.makedev gives it; 0: the record does not have
            them.
    """

    start: int
    end: int
    offset: int
    path: str
    build_id: str = ""
    inode: int = 0
    device: int = 0
    executable: bool = True

    def offset_of(self, address: int) -> int:
        """The offset of that address in the file."""
        return (address - self.start + self.offset) % 2**64

    def from_(self, start: int) -> Mapping:
        """The part behind an address."""
        return self._replace(start=start, offset=self.offset_of(start))


class Space(NamedTuple):
    """What one process had mapped, from one exec to the next.

    Attributes:
        mappings: by their addresses; none overlaps another.
    """

    pid: int
    mappings: list[Mapping]


def insert(mappings: list[Mapping], new: Mapping) -> None:
    """Add one, in place of what it covers of the others."""
    if new.end <= new.start:
        return
    first = bisect_right(mappings, new.start, key=_end)
    behind = bisect_left(mappings, new.end, first, key=_start)
    parts = [new]
    if first < behind:
        head, tail = mappings[first], mappings[behind - 1]
        if head.start < new.start:
            parts.insert(0, head._replace(end=new.start))
        if tail.end > new.end:
            parts.append(tail.from_(new.end))
    mappings[first:behind] = parts


def _kernel_file(path: str) -> str:
    """The name of the kernel's file or module as perf shows it: "[nf_tables]" for
    /lib/modules/6.1/kernel/net/netfilter/nf_tables.ko.xz.
    """
    if path.startswith(KERNEL_PATH):
        return KERNEL_PATH
    name, found, _ = path.rpartition("/")[2].partition(".ko")
    return f"[{name.replace('-', '_')}]" if found and path.startswith("/") else path


class Mappings:
    """
    Args:
        found: (type, bytes, ns) of records in the order of time.
        untimed: no event records time, and offsets in the file stand for ns.

    Attributes:
        kernel_text: where the kernel's own text begins; None: the file does not say.
        kernel_build_id: in hex; "": no record of a mapping has it.
        ambiguous: paths that several files had.
        spaces: as `at` numbers them; the first two are UNKNOWN and KERNEL.
    """

    def __init__(self, found: Iterable[tuple[int, memoryview, int]], untimed: bool = False) -> None:
        self._untimed = untimed
        self.kernel_text: int | None = None
        self.kernel_build_id = ""
        self.spaces = [Space(-1, []), Space(-1, [])]
        self.ambiguous: set[str] = set()
        self._inodes: dict[str, int] = {}
        self._now: dict[int, int] = {}
        self._bounds: dict[int, tuple[Ints, Ints]] = {}
        self._changes: list[tuple[int, int, int]] = [(-1, 0, 0)]
        for kind, record, time in found:
            if is_unseen(record):
                continue
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
        pid, mapping = _parsed(kind, record)
        if pid == _KERNEL_PID:
            self._add_kernel(mapping)
            return
        if mapping.inode and self._inodes.setdefault(mapping.path, mapping.inode) != mapping.inode:
            self.ambiguous.add(mapping.path)
        insert(self._of(pid) if pid in self._now else self._begin(pid, 0, []), mapping)

    def _add_kernel(self, mapping: Mapping) -> None:
        if mapping.path.startswith(KERNEL_PATH):
            self.kernel_text = mapping.offset or mapping.start
            self.kernel_build_id = mapping.build_id
        insert(self.spaces[KERNEL].mappings, mapping._replace(path=_kernel_file(mapping.path)))

    def indices(self, space: int, addresses: Ints) -> Ints:
        """The number of the mapping that each address is in; -1: in none."""
        if space not in self._bounds:
            mappings = self.spaces[space].mappings
            starts = np.array([one.start for one in mappings], "u8")
            self._bounds[space] = starts, np.array([one.end for one in mappings], "u8")
        starts, ends = self._bounds[space]
        if not len(starts):
            return np.full(len(addresses), -1, "i8")
        at = np.searchsorted(starts, addresses, side="right") - 1
        return np.where((at >= 0) & (addresses < ends[at]), at, -1)

    def of(self, rows: Rows) -> Ints:
        """For each of these samples the number of its address space."""
        pid, time = rows.get("pid"), rows.get("time")
        if pid is None:
            return np.zeros(len(rows), "i8")
        if self._untimed:
            return self.at(pid.values.astype("i8"), rows.offsets)
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


def _parsed(kind: int, record: memoryview) -> tuple[int, Mapping]:
    """The pid and what it mapped, by a record of type MMAP or MMAP2."""
    pid, _, start, length, offset = _MMAP.unpack_from(record, 8)
    misc = _MISC.unpack_from(record, 4)[0]
    path_at, build_id, inode, device = 40, "", 0, 0
    executable = not misc & MISC_MMAP_DATA
    if kind == Record.MMAP2 and len(record) >= 72:
        path_at = 72
        size, raw = _BUILD_ID.unpack_from(record, 40)
        # Linux sets the mark also where there is none, see client.sideband.
        if misc & MISC_MMAP_BUILD_ID and size in _BUILD_ID_SIZES:
            build_id = raw[:size].hex()
        else:
            major, minor, inode = _INODE.unpack_from(record, 40)
            device = os.makedev(major, minor) if major < 1 << 12 and minor < 1 << 20 else 0
        executable = bool(_PROTECTION.unpack_from(record, 64)[0] & _PROT_EXEC)
    path = bytes(record[path_at:]).split(b"\0")[0].decode(errors="surrogateescape")
    # A file may say any length.
    end = min(start + length, 2**64 - 1)
    return pid, Mapping(start, end, offset, path, build_id, inode, device, executable)
