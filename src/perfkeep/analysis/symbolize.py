"""From addresses in samples to functions: where each process had which file, and what that has there."""

from __future__ import annotations

import os
from bisect import bisect_right
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfkeep.analysis.mappings import Mapping, Mappings
from perfkeep.errors import DataError
from perfkeep.symbols import jitdump, perf_map, vdso
from perfkeep.symbols.demangle import demangle
from perfkeep.symbols.elf import Image, image
from perfkeep.symbols.table import SymbolTable

Ints = NDArray[Any]

#: Addresses from here on are the kernel's, on x86_64 and aarch64.
KERNEL = 1 << 63
#: Marks in call chains, enum perf_callchain_context.
CONTEXTS = 2**64 - 4095


class Function(NamedTuple):
    """What an address is part of.

    Attributes:
        name: of the function; the address in hex where nobody knows.
        file: that it is in; "" where nobody knows.
    """

    name: str
    file: str


#: How mappings of no file are called.
_ANONYMOUS = ("//anon", "/anon_hugepage", "/dev/zero", "/memfd:", "/SYSV", "[heap]", "[stack]")


class Place(NamedTuple):
    """Where an address is.

    Attributes:
        name: of the function; "" where nobody knows.
        offset: from where it begins.
        file: that it is in; "" where nobody knows.
        in_file: the offset in the file; of the kernel the address itself.
    """

    name: str
    offset: int
    file: str
    in_file: int


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
        self._images: dict[tuple[str, str, bool], Image | None] = {}
        self._roots: dict[int, str] = {}
        self._jitted: dict[tuple[int, str], tuple[SymbolTable, str] | None] = {}

    def frames(self, spaces: Ints, addresses: Ints) -> tuple[Ints, Ints, list[Function]]:
        """(lengths, codes, functions): for each address the numbers of its functions, more than one
        where some were compiled into others: the innermost first.

        Args:
            spaces: numbers of address spaces by Mappings.at, as long as `addresses`.
        """
        of_kernel = addresses >= np.uint64(KERNEL)
        # Each pair once: many samples have few different frames.
        different, places = np.unique(addresses, return_inverse=True)
        keys = np.where(of_kernel, 0, spaces) * len(different) + places
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        some_spaces, some = spaces[first], addresses[first]
        found: list[list[Function]] = [[] for _ in some]
        kernel = np.nonzero(of_kernel[first])[0]
        self._name_kernel(some, kernel, found)
        user = np.nonzero(~of_kernel[first])[0]
        for space in np.unique(some_spaces[user]).tolist():
            self._name_process(space, some, user[some_spaces[user] == space], found)
        numbers: dict[Function, int] = {}
        codes = [
            [
                numbers.setdefault(one, len(numbers))
                for one in functions or [Function(f"{int(some[at]):#x}", "")]
            ]
            for at, functions in enumerate(found)
        ]
        sizes = np.array([len(one) for one in codes], "i8")
        flat = np.array([code for one in codes for code in one], "i8")
        lengths = sizes[inverse]
        # Of each address where its own codes begin, and then one after the other.
        begins = (np.cumsum(sizes) - sizes)[inverse]
        within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return lengths, flat[np.repeat(begins, lengths) + within], list(numbers)

    def place(self, space: int, address: int) -> Place:
        """Of one address in an address space; see Mappings.at."""
        one = np.array([address], "u8")
        if address >= KERNEL:
            text = self.mappings.kernel_text
            file = "" if text is not None and address < text else "[kernel.kallsyms]"
            return self._within(self.kernel, one, file, address)
        mapping = self._mapping(space, address)
        if mapping is None or mapping.path.startswith(_ANONYMOUS):
            made, file = self._made(space) or (None, "")
            return self._within(made, one, file, address)
        known = self._image(self.mappings.spaces[space].pid, mapping)
        offset = mapping.offset_of(address)
        own = known.addresses(np.array([offset], "u8")) if known else one
        return self._within(known.symbols if known else None, own, mapping.path, offset)

    def line(self, space: int, address: int) -> str:
        """Of source code, "x.c:17"; "" where nobody knows. Apart from `place`, as it takes seconds of a
        large file.
        """
        mapping = self._mapping(space, address) if address < KERNEL else None
        known = self._image(self.mappings.spaces[space].pid, mapping) if mapping else None
        if mapping is None or known is None or known.lines is None:
            return ""
        own = known.addresses(np.array([mapping.offset_of(address)], "u8"))
        for one in known.lines.at(int(own[0]))[:1]:
            return f"{os.path.basename(one.file)}:{one.line}" if one.line else ""
        return ""

    def _mapping(self, space: int, address: int) -> Mapping | None:
        mappings = self.mappings.spaces[space].mappings
        at = bisect_right([one.start for one in mappings], address) - 1
        return mappings[at] if at >= 0 and address < mappings[at].end else None

    @staticmethod
    def _within(symbols: SymbolTable | None, own: Ints, file: str, in_file: int) -> Place:
        index = int(symbols.find(own)[0]) if symbols else -1
        if symbols is None or index < 0:
            return Place("", 0, file, in_file)
        return Place(symbols.name(index), int(own[0] - symbols.starts[index]), file, in_file)

    def _name_kernel(self, some: Ints, which: Ints, found: list[list[Function]]) -> None:
        names = self.kernel.names_of(some[which]) if self.kernel else [None] * len(which)
        for at, name in zip(which.tolist(), names, strict=True):
            found[at] = [Function(name or f"{int(some[at]):#x}", "[kernel]")]

    def _name_process(
        self, space: int, some: Ints, which: Ints, found: list[list[Function]]
    ) -> None:
        pid, mappings = self.mappings.spaces[space]
        addresses = some[which]
        if made := self._made(space):
            symbols, file = made
            for row, name in zip(which.tolist(), symbols.names_of(addresses), strict=True):
                found[row] = [Function(name, file)] if name else []
        if not mappings:
            return
        starts = np.array([one.start for one in mappings], "u8")
        at = np.searchsorted(starts, addresses, side="right") - 1
        for index in np.unique(at[at >= 0]).tolist():
            mapping = mappings[index]
            inside = (at == index) & (addresses < np.uint64(mapping.end))
            self._name_mapping(pid, mapping, some, which[inside], found)

    def _name_mapping(
        self, pid: int, mapping: Mapping, some: Ints, which: Ints, found: list[list[Function]]
    ) -> None:
        known = self._image(pid, mapping)
        offsets = some[which] - np.uint64(mapping.start) + np.uint64(mapping.offset)
        own = known.addresses(offsets) if known else offsets
        names = known.symbols.names_of(own) if known else [None] * len(which)
        for row, name, offset, address in zip(
            which.tolist(), names, offsets.tolist(), own.tolist(), strict=True
        ):
            if found[row] and mapping.path.startswith(_ANONYMOUS):
                continue
            inlined = known.lines.at(address)[:-1] if known and known.lines else []
            shown = name or f"{os.path.basename(mapping.path)}+{offset:#x}"
            found[row] = [
                *(Function(demangle(one.function), mapping.path) for one in inlined),
                Function(shown, mapping.path),
            ]

    def _made(self, space: int) -> tuple[SymbolTable, str] | None:
        """What a just-in-time compiler in that process told of its code, and in which file. Only if
        the kernel is the one of the recording: after another boot the number is that of another
        process.
        """
        pid, mappings = self.mappings.spaces[space]
        if not self.kernel or pid <= 0:
            return None
        dump = next((one.path for one in mappings if jitdump.pid_in(one.path) is not None), "")
        if (pid, dump) not in self._jitted:
            made = jitdump.read(self._root(pid) + dump, pid) if dump else perf_map.of_process(pid)
            known = None if made is None else (made, dump or perf_map.path_of(pid))
            self._jitted[pid, dump] = known
        return self._jitted[pid, dump]

    def _image(self, pid: int, mapping: Mapping) -> Image | None:
        """None: it is not there, is no ELF file, or another build."""
        build_id = mapping.build_id or self.build_ids.get(mapping.path, "")
        # Processes of 32 bits have a vdso of their own.
        narrow = mapping.path == vdso.NAME and mapping.start < 1 << 32
        path = self._root(pid) + mapping.path if mapping.path.startswith("/") else mapping.path
        key = (path, build_id, narrow)
        if key not in self._images:
            try:
                self._images[key] = self._read(mapping, path, build_id)
            except (OSError, DataError):
                self._images[key] = None
        return self._images[key]

    def _root(self, pid: int) -> str:
        """Where a process sees its files, if it lives and that is not where we see ours."""
        if pid not in self._roots:
            self._roots[pid] = ""
            with suppress(OSError):
                if (
                    self.kernel
                    and pid > 0
                    and not os.path.samefile(f"/proc/{pid}/ns/mnt", "/proc/self/ns/mnt")
                ):
                    self._roots[pid] = f"/proc/{pid}/root"
        return self._roots[pid]

    def _read(self, mapping: Mapping, path: str, build_id: str) -> Image | None:
        if path.startswith("/"):
            return image(path, build_id)
        of_kernel = self.build_ids.get("[kernel.kallsyms]", "")
        # Without any build id it is that of now if the kernel is.
        if mapping.path == vdso.NAME and (build_id or of_kernel or self.kernel is not None):
            return vdso.vdso(mapping.start, build_id, of_kernel)
        return None
