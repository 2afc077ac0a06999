"""Symbols of an ELF file: its functions, and where in the file they lie. Needs numpy.

pyelftools finds the sections; the symbols themselves are read as columns, as going through them one
by one takes half a second for a large library.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
from elftools.elf.elffile import ELFFile
from numpy.typing import NDArray

from perfkeep.errors import DataError
from perfkeep.symbols.build_id import of_file
from perfkeep.symbols.debuginfod import fetch
from perfkeep.symbols.identity import ANY, Identity, OtherFile, locate
from perfkeep.symbols.lines import Lines, lines
from perfkeep.symbols.table import SymbolTable

Ints = NDArray[Any]

_SYMBOL_64 = np.dtype(
    [("name", "u4"), ("info", "u1"), ("other", "u1"), ("section", "u2"), ("value", "u8"),
     ("size", "u8")]
)  # fmt: skip
_SYMBOL_32 = np.dtype(
    [("name", "u4"), ("value", "u4"), ("size", "u4"), ("info", "u1"), ("other", "u1"),
     ("section", "u2")]
)  # fmt: skip
# STT_FUNC, STT_GNU_IFUNC; STT_NOTYPE is what assembler code often has.
_CODE = (2, 10)
_NO_TYPE = 0
# By binding: of aliases a global one counts most, and a weak one least, as for perf.
_RANKS = np.array([1, 2, 0, *[1] * 13], "u1")
_FULL = ".symtab"
# SHF_ALLOC, SHF_EXECINSTR
_ALLOCATED_FLAG, _CODE_FLAG = 2, 4
_DWARF = ".debug_info"
_MOST_PARTS = 1 << 16
#: Where distributions put debug files.
DEBUG = "/usr/lib/debug"


class Image:
    """One ELF file.

    Attributes:
        symbols: by the file's own addresses.
    """

    def __init__(
        self, file: BinaryIO, debug: BinaryIO | None = None, path: str = "", build_id: str = ""
    ) -> None:
        """
        Args:
            debug: the file that its symbols were moved to.
            path: of the one of the two that would have the DWARF; "": it is not read.
            build_id: in hex; "": it has none.

        Raises:
            DataError: no ELF file, or a broken one.
        """
        try:
            elf = _checked(file)
            self._segments = list(_loaded(elf))
            other = _checked(debug) if debug else elf
            more = _tables(other) if debug else ()
            has_dwarf = other.get_section_by_name(_DWARF) is not None
            self._dwarf = path if has_dwarf else ""
            self._build_id = build_id
            self.symbols = _symbols([*_tables(elf), *more], _ends(elf))
        except Exception as error:  # of a damaged file pyelftools raises whatever comes up
            raise DataError(f"this is no ELF file that can be read: {error}", 0) from error

    def addresses(self, offsets: Ints) -> Ints:
        """The file's own addresses of what lies at these offsets in it."""
        found = offsets.astype("u8").copy()
        for offset, size, address in self._segments:
            inside = (offsets >= offset) & (offsets < offset + size)
            found[inside] = offsets[inside].astype("u8") + np.uint64((address - offset) % 2**64)
        return found

    @cached_property
    def lines(self) -> Lines | None:
        """None: nobody knows."""
        base = min((address for _, _, address in self._segments), default=0)
        if not self._dwarf:
            return None
        try:
            with _plain(self._dwarf) as file:
                # Whatever has taken its place since: this is a plain file, and it is waited for nobody.
                return lines(f"/proc/self/fd/{file.fileno()}", base, self._build_id)
        except OSError:
            return None


def _checked(file: BinaryIO) -> ELFFile:
    """With no more parts than a file can have that was not made to keep its reader busy."""
    elf = ELFFile(file)
    if max(elf.num_sections(), elf.num_segments()) > _MOST_PARTS:
        raise ValueError("too many sections")
    return elf


def _loaded(elf: ELFFile) -> Iterator[tuple[int, int, int]]:
    """(offset, size, address) of what is mapped: segments, or, where a file has sections only, as
    `perf inject --jit` writes it, these.
    """
    if elf.num_segments():
        for part in elf.iter_segments():
            if part["p_type"] == "PT_LOAD":
                yield part["p_offset"], part["p_filesz"], part["p_vaddr"]
        return
    for section in elf.iter_sections():
        if section["sh_flags"] & _ALLOCATED_FLAG and section["sh_type"] != "SHT_NOBITS":
            yield section["sh_offset"], section["sh_size"], section["sh_addr"]


def _tables(elf: ELFFile) -> Iterator[tuple[bool, Ints, bytes]]:
    """Each symbol table and its names, and whether it is that of all symbols."""
    kind = _SYMBOL_64 if elf.elfclass == 64 else _SYMBOL_32
    kind = kind if elf.little_endian else kind.newbyteorder(">")
    for name in (_FULL, ".dynsym"):
        section = elf.get_section_by_name(name)
        if section is None or section["sh_type"] == "SHT_NOBITS":
            continue
        data = section.data()
        names = elf.get_section(section["sh_link"])
        if names is not None:
            yield (
                name == _FULL,
                np.frombuffer(data[: len(data) // kind.itemsize * kind.itemsize], kind),
                names.data(),
            )


def _symbols(tables: list[tuple[bool, Ints, bytes]], ends: Ints) -> SymbolTable:
    """
    Args:
        ends: of the sections with code, by their numbers; 0: it has none.
    """
    parts: list[tuple[Ints, Ints, Ints, Ints, Ints]] = []
    names = b""
    for full, table, text in tables:
        type = table["info"] & 0xF
        limits = np.append(ends, np.uint64(0))[np.minimum(table["section"], len(ends))]
        # A label of assembler code, like _start, which is not hidden.
        label = (type == _NO_TYPE) & (limits > 0) & ~np.isin(table["other"] & 3, (1, 2))
        wanted = np.isin(type, _CODE) | label | ((type == _NO_TYPE) & (table["size"] > 0))
        # Defined here, and its name within the names.
        wanted &= (table["section"] != 0) & (table["value"] != 0) & (table["name"] < len(text))
        some = table[wanted]
        parts.append(
            (some["value"].astype("u8"), some["size"].astype("u8"),
             some["name"].astype("i8") + len(names), limits[wanted],
             _RANKS[some["info"] >> 4] + (len(_RANKS) if full else 0))
        )  # fmt: skip
        names += text + b"\0"
    if not parts:
        return SymbolTable(np.empty(0, "u8"), np.empty(0, "u8"), b"", np.empty(0, "i8"))
    starts, sizes, places, limits, ranks = (np.concatenate(one) for one in zip(*parts, strict=True))
    order = _aliases_ranked(starts, ranks, places, names)
    return SymbolTable(starts[order], sizes[order], names, places[order], limits[order])


def _aliases_ranked(starts: Ints, ranks: Ints, places: Ints, names: bytes) -> Ints:
    """An order of symbols in which of those at one address the best comes last, chosen as perf does
    (choose_best_symbol): by rank, then that with fewer leading underscores, the longer, the earlier.
    """
    in_order = np.sort(starts)
    repeated = in_order[1:][in_order[1:] == in_order[:-1]]
    shared = np.isin(starts, repeated)
    aliases = np.nonzero(shared)[0]
    texts = np.frombuffer(names, "u1")
    ends = np.nonzero(texts == 0)[0]
    begin = places[aliases]
    end = ends[np.searchsorted(ends, begin)]
    underscores = np.zeros(len(begin), "i8")
    while (more := texts[begin + underscores] == ord("_")).any():  # a NUL ends each name
        underscores += more
    order = np.lexsort((-aliases, end - begin, -underscores, ranks[aliases]))
    return np.concatenate([np.nonzero(~shared)[0], aliases[order]])


def _ends(elf: ELFFile) -> Ints:
    """Where each section ends: what is assembler code and says no size goes on to there."""
    return np.array(
        [
            (one["sh_addr"] + one["sh_size"]) % 2**64 if one["sh_flags"] & _CODE_FLAG else 0
            for one in elf.iter_sections()
        ],
        "u8",
    )


def debug_file(build_id: str) -> str:
    """Where the debug file of a build id would lie."""
    return f"{DEBUG}/.build-id/{build_id[:2]}/{build_id[2:]}.debug"


def image(path: str, identity: Identity = ANY) -> Image:
    """
    Args:
        path: as the kernel has it, with " (deleted)" behind a file that was unlinked.
        identity: of the file that is meant.

    Raises:
        OtherFile: another file than the one that is meant lies there.
        DataError: no ELF file, or a broken one.
        OSError: it cannot be read.
    """
    build_id = identity.build_id
    try:
        path = locate(path, identity)
    except (OSError, OtherFile):
        path = fetch("executable", build_id) if build_id else ""
        if not path:
            raise
    there = of_file(os.fsencode(path))
    build_id = build_id or (there.hex() if there else "")
    with _plain(path) as file:
        debug = debug_file(build_id) if build_id else ""
        if not debug or not os.path.exists(debug):
            debug = _linked(path, file)
        if not debug and build_id and not _has_dwarf(file):
            debug = fetch("debuginfo", build_id)
        if debug:
            with _plain(debug) as more:
                return Image(file, more, debug, build_id)
        return Image(file, None, path, build_id)


def _has_dwarf(file: BinaryIO) -> bool:
    try:
        return _checked(file).get_section_by_name(_DWARF) is not None
    except Exception:  # of a damaged file pyelftools raises whatever comes up
        return False


def _plain(path: str) -> BinaryIO:
    """Opened for reading, without waiting for anybody.

    Raises:
        OSError: it cannot be, or is no plain file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "no plain file", path)
    return os.fdopen(fd, "rb")


def _linked(path: str, file: BinaryIO) -> str:
    """The debug file that .gnu_debuglink names, where gdb(1) looks for it; "": none."""
    try:
        section = _checked(file).get_section_by_name(".gnu_debuglink")
        data = section.data() if section is not None else b""
    except Exception:  # of a damaged file pyelftools raises whatever comes up
        return ""
    name, _, rest = data.partition(b"\0")
    checksum = int.from_bytes(rest[-4:], sys.byteorder)
    if not name or b"/" in name or len(rest) < 4:
        return ""
    folder = os.path.dirname(os.path.realpath(path))
    for place in (folder, f"{folder}/.debug", f"{DEBUG}{folder}"):
        found = os.path.join(place, os.fsdecode(name))
        if _checksum(found) == checksum:
            return found
    return ""


def _checksum(path: str) -> int | None:
    """None: no plain file that can be read."""
    found = 0
    try:
        with _plain(path) as file:
            while part := file.read(1 << 20):
                found = zlib.crc32(part, found)
    except OSError:
        return None
    return found
