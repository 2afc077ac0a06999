"""From addresses in samples to functions: where each process had which file, and what that has there.

Mappings are those that the file tells of; of two that overlap the later one counts. A process that
was forked has what its parent had.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfkeep.abi.records import MISC_MMAP_BUILD_ID, Record
from perfkeep.errors import DataError
from perfkeep.symbols.elf import Image, image
from perfkeep.symbols.table import SymbolTable

Ints = NDArray[Any]

_MMAP = struct.Struct("=IIQQQ")
_MMAP2_TAIL = struct.Struct("=B3x20s")
_FORK = struct.Struct("=IIII")
_MISC = struct.Struct("=H")
#: Addresses from here on are the kernel's, on x86_64 and aarch64.
KERNEL = 1 << 63
#: Marks in call chains, enum perf_callchain_context.
CONTEXTS = 2**64 - 4095
_KERNEL_PID = 0xFFFFFFFF


class Mapping(NamedTuple):
    start: int
    end: int
    offset: int
    path: str
    build_id: str


class Function(NamedTuple):
    """What an address is part of.

    Attributes:
        name: of the function; the address in hex where nobody knows.
        file: that it is in; "" where nobody knows.
    """

    name: str
    file: str


class Mappings:
    """Which file a process had where.

    Args:
        found: (type, bytes) of records in the order of time.
    """

    def __init__(self, found: Iterable[tuple[int, memoryview]]) -> None:
        self._of: dict[int, list[Mapping]] = {}
        self._parent: dict[int, int] = {}
        #: Where the kernel's own text begins; None: the file does not say.
        self.kernel_text: int | None = None
        for kind, record in found:
            if kind == Record.FORK and len(record) >= 24:
                pid, parent, _, _ = _FORK.unpack_from(record, 8)
                if pid != parent:
                    self._parent.setdefault(pid, parent)
            elif kind in (Record.MMAP, Record.MMAP2) and len(record) >= 48:
                self._add(kind, record)

    def _add(self, kind: int, record: memoryview) -> None:
        pid, _, start, length, offset = _MMAP.unpack_from(record, 8)
        text_at, build_id = 40, ""
        if kind == Record.MMAP2:
            text_at = 72
            if _MISC.unpack_from(record, 4)[0] & MISC_MMAP_BUILD_ID and len(record) >= 72:
                size, raw = _MMAP2_TAIL.unpack_from(record, 40)
                build_id = raw[: min(size, 20)].hex()
        path = bytes(record[text_at:]).split(b"\0")[0].decode(errors="surrogateescape")
        if pid == _KERNEL_PID:
            if path.startswith("[kernel.kallsyms]"):
                self.kernel_text = offset or start
            return
        new = Mapping(start, start + length, offset, path, build_id)
        before = self._of.setdefault(pid, [])
        before[:] = [one for one in before if one.end <= start or one.start >= new.end]
        before.insert(bisect_right([one.start for one in before], start), new)

    def of(self, pid: int) -> list[Mapping]:
        """By their addresses."""
        for _ in range(1000):
            if pid in self._of or pid not in self._parent:
                break
            pid = self._parent[pid]
        return self._of.get(pid, [])


class Symbolizer:
    """Names functions.

    Args:
        kernel: the kernel's symbols, if they are those of the time.
        build_ids: of files by their path, where mappings do not say.
    """

    def __init__(
        self, mappings: Mappings, kernel: SymbolTable | None = None,
        build_ids: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.mappings = mappings
        self.kernel = kernel
        self.build_ids = build_ids or {}
        self._images: dict[tuple[str, str], Image | None] = {}

    def functions(self, pids: Ints, addresses: Ints) -> tuple[Ints, list[Function]]:
        """For each address of a process the number of its function, and the functions.

        Args:
            pids: int64, as long as `addresses`.
        """
        of_kernel = addresses >= np.uint64(KERNEL)
        # One number for both: many samples have few different frames.
        keys = addresses ^ (np.where(of_kernel, 0, pids).astype("u8") << np.uint64(40))
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        some_pids, some = pids[first], addresses[first]
        found: list[Function | None] = [None] * len(some)
        kernel = np.nonzero(of_kernel[first])[0]
        self._name_kernel(some, kernel, found)
        user = np.nonzero(~of_kernel[first])[0]
        for pid in np.unique(some_pids[user]).tolist():
            self._name_process(pid, some, user[some_pids[user] == pid], found)
        numbers: dict[Function, int] = {}
        codes = np.empty(len(some), "i8")
        for at, function in enumerate(found):
            one = function or Function(f"{int(some[at]):#x}", "")
            codes[at] = numbers.setdefault(one, len(numbers))
        return codes[inverse], list(numbers)

    def _name_kernel(self, some: Ints, which: Ints, found: list[Function | None]) -> None:
        names = self.kernel.names_of(some[which]) if self.kernel else [None] * len(which)
        for at, name in zip(which.tolist(), names, strict=True):
            found[at] = Function(name or f"{int(some[at]):#x}", "[kernel]")

    def _name_process(
        self, pid: int, some: Ints, which: Ints, found: list[Function | None]
    ) -> None:
        mappings = self.mappings.of(pid)
        if not mappings:
            return
        addresses = some[which]
        starts = np.array([one.start for one in mappings], "u8")
        at = np.searchsorted(starts, addresses, side="right") - 1
        for index in np.unique(at[at >= 0]).tolist():
            mapping = mappings[index]
            inside = (at == index) & (addresses < np.uint64(mapping.end))
            rows, names = which[inside], self._names(mapping, addresses[inside])
            for row, name in zip(rows.tolist(), names, strict=True):
                place = f"{int(some[row]) - mapping.start + mapping.offset:#x}"
                file = os.path.basename(mapping.path)
                found[row] = Function(name or f"{file}+{place}", mapping.path)

    def _names(self, mapping: Mapping, addresses: Ints) -> list[str | None]:
        known = self._image(mapping)
        if known is None:
            return [None] * len(addresses)
        offsets = addresses - np.uint64(mapping.start) + np.uint64(mapping.offset)
        return known.symbols.names_of(known.addresses(offsets))

    def _image(self, mapping: Mapping) -> Image | None:
        """None: it is not there, is no ELF file, or another build."""
        key = (mapping.path, mapping.build_id or self.build_ids.get(mapping.path, ""))
        if key not in self._images:
            try:
                self._images[key] = image(*key) if key[0].startswith("/") else None
            except (OSError, DataError):
                self._images[key] = None
        return self._images[key]
