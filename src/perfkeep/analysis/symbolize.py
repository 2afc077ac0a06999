"""From addresses in samples to functions: by the file that was mapped there, and its symbols."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfkeep.analysis.mappings import KERNEL, KERNEL_PATH, Mapping, Mappings
from perfkeep.errors import DataError
from perfkeep.symbols import jitdump, perf_map, vdso
from perfkeep.symbols.demangle import demangle
from perfkeep.symbols.elf import Image, image
from perfkeep.symbols.identity import Identity, OtherFile
from perfkeep.symbols.lines import Line
from perfkeep.symbols.table import SymbolTable

Ints = NDArray[Any]


#: Name of the functions whose addresses are redacted.
HIDDEN = "[kernel, hidden]"


class Function(NamedTuple):
    """What an address is part of.

    Attributes:
        name: of the function; the address in hex where nobody knows.
        file: that it is in; "" where nobody knows.
    """

    name: str
    file: str


#: Names of mappings of no file. perf names them after the file where a just-in-time compiler
#: names its functions.
_ANONYMOUS = ("//anon", "/anon_hugepage", "/dev/zero", "/SYSV", "[heap]", "[stack]")
#: Names of mappings in which a just-in-time compiler may have put code.
_JITTED = (*_ANONYMOUS, "/memfd:")


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


#: By path, build id, inode, device and start of the mapping; None: there is no such file here.
Images = dict[tuple[str, str, int, int, int], Image | None]


class Symbolizer:
    """Names functions.

    Args:
        kernel: the kernel's symbols.
        build_ids: of files by their path, where mappings do not have them.
        same_boot: whether the recording is of this machine, since it was booted. If not, neither
            `kernel` nor what is known of processes here is used.
        exact: whether build_ids are of the very files that were mapped. perf reads them by path when
            it ends, where another file may lie.
        images: files that another symbolizer has read; this one adds those that it reads.

    Attributes:
        replaced: paths of mapped files where another file lies now.
    """

    def __init__(
        self, mappings: Mappings, kernel: SymbolTable | None = None,
        build_ids: dict[str, str] | None = None, same_boot: bool = False, exact: bool = False,
        images: Images | None = None,
    ) -> None:  # fmt: skip
        self.mappings = mappings
        self.kernel = kernel if same_boot else None
        self.build_ids = build_ids or {}
        self.same_boot = same_boot
        self.exact = exact
        self.replaced: set[str] = set()
        self._images: Images = {} if images is None else images
        self._roots: dict[int, str] = {}
        self._jitted: dict[tuple[int, str], tuple[SymbolTable, str] | None] = {}

    def frames(self, spaces: Ints, addresses: Ints) -> tuple[Ints, Ints, list[Function]]:
        """(lengths, codes, functions): for each address the numbers of its functions, more than one
        where some were compiled into others: the innermost first.

        Args:
            spaces: numbers of address spaces by Mappings.at, as long as `addresses`.
        """
        # Each pair once: many samples have few different frames.
        different, places = np.unique(addresses, return_inverse=True)
        keys = spaces * len(different) + places
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        some_spaces, some = spaces[first], addresses[first]
        found: list[list[Function]] = [[] for _ in some]
        for space in np.unique(some_spaces).tolist():
            which = np.nonzero(some_spaces == space)[0]
            for row, functions in zip(
                which.tolist(), self._functions(space, some[which]), strict=True
            ):
                found[row] = functions
        numbers: dict[Function, int] = {}
        codes = [
            [numbers.setdefault(one, len(numbers)) for one in functions] for functions in found
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
        return self.places(space, np.array([address], "u8"))[0]

    def places(self, space: int, addresses: Ints) -> list[Place]:
        """The places of addresses in one address space."""
        at = self.mappings.indices(space, addresses)
        if space == KERNEL:
            return self._kernel_places(addresses, at)
        pid, mappings = self.mappings.spaces[space]
        found = self._jitted_places(space, addresses)
        for index in np.unique(at[at >= 0]).tolist():
            mapping, rows = mappings[index], np.nonzero(at == index)[0]
            jitted = mapping.path.startswith(_JITTED)
            for row, place in zip(
                rows.tolist(), self._mapped_places(pid, mapping, addresses[rows]), strict=True
            ):
                if not (jitted and found[row].name):
                    found[row] = place
        return found

    def remarks(self) -> list[str]:
        """A sentence on files that have no names for a reason; nothing before names are asked for."""
        if not self.replaced:
            return []
        first, *others = sorted(self.replaced)
        more = f" and {len(others)} more" if others else ""
        return [
            f"functions of {first}{more} have no names: another file is there than the one that ran"
        ]

    def line(self, space: int, address: int) -> str:
        """Of source code, "x.c:17"; "" where nobody knows. Apart from `place`, as it takes seconds of a
        large file.
        """
        for one in self._lines(space, np.array([address], "u8"))[0][:1]:
            return f"{os.path.basename(one.file)}:{one.line}" if one.line else ""
        return ""

    def _functions(self, space: int, addresses: Ints) -> list[list[Function]]:
        """The functions at each address of one space."""
        places = self.places(space, addresses)
        if space == KERNEL:
            return [[_kernel_function(place)] for place in places]
        lines = self._lines(space, addresses)
        return [
            [
                *(Function(demangle(one.function), place.file) for one in inlined[:-1]),
                Function(place.name or _unnamed(place, address), place.file),
            ]
            for place, address, inlined in zip(places, addresses.tolist(), lines, strict=True)
        ]

    def _lines(self, space: int, addresses: Ints) -> list[list[Line]]:
        """Look these addresses up in each file's DWARF; see symbols.lines."""
        found: list[list[Line]] = [[] for _ in addresses]
        if space == KERNEL:
            return found
        pid, mappings = self.mappings.spaces[space]
        at = self.mappings.indices(space, addresses)
        for index in np.unique(at[at >= 0]).tolist():
            known = self._image(pid, mappings[index])
            if known is None or known.lines is None:
                continue
            rows = np.nonzero(at == index)[0]
            own = known.addresses(_offsets(mappings[index], addresses[rows]))
            for row, address in zip(rows.tolist(), own.tolist(), strict=True):
                found[row] = known.lines.at(address)
        return found

    def _kernel_places(self, addresses: Ints, at: Ints) -> list[Place]:
        mappings = self.mappings.spaces[KERNEL].mappings
        text = self.mappings.kernel_text or 0
        files = [
            mappings[index].path if index >= 0 else KERNEL_PATH if address >= text else ""
            for index, address in zip(at.tolist(), addresses.tolist(), strict=True)
        ]
        found = _named(self.kernel, addresses, files, addresses)
        # The redactor leaves 0 of an address that the kernel hides from the reader.
        for row in np.nonzero(addresses == 0)[0].tolist():
            found[row] = Place(HIDDEN, 0, KERNEL_PATH, 0)
        return found

    def _jitted_places(self, space: int, addresses: Ints) -> list[Place]:
        """Find addresses in what a just-in-time compiler wrote of its code."""
        made = self._made(space)
        symbols, file = made or (None, "")
        some = _named(symbols, addresses, [file] * len(addresses), addresses)
        return [one if one.name else one._replace(file="") for one in some]

    def _mapped_places(self, pid: int, mapping: Mapping, addresses: Ints) -> list[Place]:
        if mapping.path.startswith(_ANONYMOUS):
            file = perf_map.path_of(pid)
            return [Place("", 0, file, address) for address in addresses.tolist()]
        offsets, known = _offsets(mapping, addresses), self._image(pid, mapping)
        files = [mapping.path] * len(addresses)
        if known is None:
            return _named(None, offsets, files, offsets)
        return _named(known.symbols, known.addresses(offsets), files, offsets)

    def _made(self, space: int) -> tuple[SymbolTable, str] | None:
        """The functions of a just-in-time compiler in that process, and the file that names them. Only
        of this boot: after another one the pid is that of another process.
        """
        pid, mappings = self.mappings.spaces[space]
        if not self.same_boot or pid <= 0:
            return None
        dump = next((one.path for one in mappings if jitdump.pid_in(one.path) is not None), "")
        if (pid, dump) not in self._jitted:
            made = jitdump.read(self._root(pid) + dump, pid) if dump else perf_map.of_process(pid)
            known = None if made is None else (made, dump or perf_map.path_of(pid))
            self._jitted[pid, dump] = known
        return self._jitted[pid, dump]

    def _image(self, pid: int, mapping: Mapping) -> Image | None:
        """The file of a mapping; None: it is not here, no ELF file, or not the one that was mapped."""
        root = self._root(pid) if mapping.path.startswith("/") else ""
        # Processes of 32 bits have a vdso of their own.
        start = mapping.start if mapping.path == vdso.NAME else 0
        key = (root + mapping.path, mapping.build_id, mapping.inode, mapping.device, start)
        if key not in self._images:
            self._images[key] = None
            with suppress(OSError, DataError):
                self._images[key] = self._read(root, mapping)
        return self._images[key]

    def _identity(self, mapping: Mapping) -> Identity:
        """The known identity of the file that was mapped."""
        if mapping.build_id:
            return Identity(mapping.build_id)
        build_id = self.build_ids.get(mapping.path, "")
        if mapping.path in self.mappings.ambiguous:
            build_id = ""  # of one of several files
        elif build_id and (self.exact or not self.same_boot):
            return Identity(build_id)
        # The number of a device may change with each boot.
        return Identity(build_id, mapping.inode, mapping.device if self.same_boot else 0)

    def _root(self, pid: int) -> str:
        """The root folder of a process that lives and has another one than this process; "": it has
        the same, or has ended.
        """
        if pid not in self._roots:
            self._roots[pid] = ""
            with suppress(OSError):
                if self.same_boot and pid > 0 and not _same_files(pid):
                    self._roots[pid] = f"/proc/{pid}/root"
        return self._roots[pid]

    def _read(self, root: str, mapping: Mapping) -> Image | None:
        identity = self._identity(mapping)
        if mapping.path.startswith("/"):
            try:
                return image(root + mapping.path, identity)
            except OtherFile:
                self.replaced.add(mapping.path)
                raise
        of_kernel = self.build_ids.get(KERNEL_PATH, "")
        # Without any build id it is that of now if the kernel is.
        if mapping.path == vdso.NAME and (identity.build_id or of_kernel or self.same_boot):
            return vdso.vdso(mapping.start, identity.build_id, of_kernel)
        return None


def _same_files(pid: int) -> bool:
    """True if a process sees the files that this one sees.

    Raises:
        OSError: it has ended, or this process may not look.
    """
    return all(
        os.path.samefile(f"/proc/{pid}/{one}", f"/proc/self/{one}") for one in ("ns/mnt", "root")
    )


def _offsets(mapping: Mapping, addresses: Ints) -> Ints:
    """The offsets of addresses in the file that is mapped there."""
    return addresses - np.uint64(mapping.start) + np.uint64(mapping.offset)


def _named(
    symbols: SymbolTable | None, own: Ints, files: Sequence[str], in_files: Ints
) -> list[Place]:
    """Places by symbols.

    Args:
        own: addresses as the symbols have them.
        files, in_files: of each place.
    """
    if symbols is None:
        return [Place("", 0, *one) for one in zip(files, in_files.tolist(), strict=True)]
    found = symbols.find(own)
    names = symbols.names_of(own)
    offsets = own - symbols.starts[found] if len(symbols) else own
    return [
        Place(name, offset, file, in_file) if name else Place("", 0, file, in_file)
        for name, offset, file, in_file in zip(
            names, offsets.tolist(), files, in_files.tolist(), strict=True
        )
    ]


def _kernel_function(place: Place) -> Function:
    """`[kernel]` is the file of what is not in a module."""
    file = "[kernel]" if place.file in ("", KERNEL_PATH) else place.file
    return Function(place.name or f"{place.in_file:#x}", file)


def _unnamed(place: Place, address: int) -> str:
    """A name of a place that no symbol covers."""
    if not place.file or place.in_file == address:
        return f"{address:#x}"
    return f"{os.path.basename(place.file)}+{place.in_file:#x}"
