"""Where in an ELF file a function is: what a uprobe must be given."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from perfkeep.errors import SpecError
from perfkeep.events.suggest import unknown

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

# <elf.h>
_SHN_UNDEF = 0
_STT_FUNC, _STT_GNU_IFUNC = 2, 10
_STB_LOCAL = 0


def function_offset(path: str, symbol: str) -> int:
    """The offset in the file of the first instruction of a function.

    Looks into .symtab and .dynsym. A function that is visible from outside goes before local
    ones of the same name.

    Raises:
        SpecError: ENOENT no such file or function · EINVAL no ELF file, or several local
            functions of that name.
    """
    from elftools.elf.elffile import ELFFile  # 30 ms: only uprobes need it

    try:
        with open(path, "rb") as file:
            elf = ELFFile(file)
            found = list(_symbols(elf, symbol))
            if not found:
                raise unknown(f"{path} has no function {symbol!r}", symbol, _function_names(elf))
            visible = {address for address, local in found if not local}
            addresses = sorted(visible or {address for address, _ in found})
            offsets = [_file_offset(elf, address, path) for address in addresses]
    except OSError as error:
        if isinstance(error, SpecError):
            raise
        number = error.errno or errno.EIO
        raise SpecError(f"{path} cannot be read: {error.strerror}", path, errno=number) from error
    except Exception as error:
        # pyelftools raises ELFError for what it checks; what it does not check comes through as
        # ValueError, KeyError, struct.error, … All of them mean that the file is damaged.
        raise SpecError(f"{path} is no ELF file: {error}", path) from error
    if len(offsets) > 1:
        raise SpecError(
            f"{path} has {len(offsets)} functions called {symbol!r}",
            symbol,
            hint=f"name one by its offset in the file: {', '.join(f'{offset:#x}' for offset in offsets)}",
        )
    return offsets[0]


def _tables(elf: ELFFile) -> Iterator[tuple[bytes, list[tuple[int, int, int, int]]]]:
    """The strings of each symbol table, and (st_name, st_info, st_shndx, st_value) of its
    functions. pyelftools makes an object of every symbol, 0.6 s for a big library; this does not.
    """
    order = "<" if elf.little_endian else ">"
    wide = elf.elfclass == 64
    layout = struct.Struct(order + ("IBBHQQ" if wide else "IIIBBH"))
    for name in (".symtab", ".dynsym"):
        section = elf.get_section_by_name(name)
        if section is None:
            continue
        data = section.data()
        rows = layout.iter_unpack(data[: len(data) // layout.size * layout.size])
        if wide:
            symbols = [(row[0], row[1], row[3], row[4]) for row in rows]
        else:
            symbols = [(row[0], row[3], row[5], row[1]) for row in rows]
        strings = elf.get_section(section["sh_link"]).data()
        yield (
            strings,
            [
                symbol
                for symbol in symbols
                if symbol[1] & 15 in (_STT_FUNC, _STT_GNU_IFUNC) and symbol[2] != _SHN_UNDEF
            ],
        )


def _symbols(elf: ELFFile, wanted: str) -> Iterator[tuple[int, bool]]:
    """(address, whether it is local) of the functions of one name."""
    ending = wanted.encode() + b"\0"
    for strings, symbols in _tables(elf):
        # Linkers let a string that ends like another share its bytes, so it may be anywhere.
        places = set()
        at = strings.find(ending)
        while at >= 0:
            places.add(at)
            at = strings.find(ending, at + 1)
        for name, info, _, value in symbols:
            if name in places:
                yield value, info >> 4 == _STB_LOCAL


def _function_names(elf: ELFFile) -> Iterator[str]:
    for strings, symbols in _tables(elf):
        for name, *_ in symbols:
            end = strings.find(b"\0", name)
            yield strings[name:end].decode(errors="replace")


def _file_offset(elf: ELFFile, address: int, path: str) -> int:
    for segment in elf.iter_segments("PT_LOAD"):
        begin = segment["p_vaddr"]
        if begin <= address < begin + segment["p_filesz"]:
            return int(address - begin + segment["p_offset"])
    raise SpecError(f"the address {address:#x} is in no loaded part of {path}", f"{address:#x}")
