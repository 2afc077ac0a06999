"""Probes in ELF files that are made here, byte by byte, and in a kernel that has kprobes."""

from __future__ import annotations

import errno
import struct
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Attr
from perfkeep.errors import SpecError
from perfkeep.events import Event, elf, parse

FUNCTION, OBJECT = 2, 1
LOCAL, GLOBAL = 0, 1
PT_LOAD, SHT_STRTAB, SHT_SYMTAB = 1, 3, 2
# Where the one segment is in the file, and in memory.
OFFSET, ADDRESS, SIZE = 0x1000, 0x401000, 0x800


class Symbol(NamedTuple):
    name: str
    address: int
    kind: int = FUNCTION
    binding: int = GLOBAL
    section: int = 1


def assemble(symbols: list[Symbol], wide: bool = True, little: bool = True) -> bytes:
    """An ELF file: header | one program header | strings | symbols | section headers.

    Names share their ends ("main" lies in "domain"), as linkers do it.
    """
    order, word = "<>"[not little], "IQ"[wide]
    strings = bytearray(b"\0")
    for name in sorted((symbol.name for symbol in symbols), key=len, reverse=True):
        if name.encode() + b"\0" not in strings:
            strings += name.encode() + b"\0"
    names = bytearray(b"\0.symtab\0.strtab\0")
    table = bytearray(24 if wide else 16)
    for symbol in symbols:
        at = strings.index(symbol.name.encode() + b"\0")
        info = symbol.binding << 4 | symbol.kind
        if wide:
            table += struct.pack(order + "IBBHQQ", at, info, 0, symbol.section, symbol.address, 4)
        else:
            table += struct.pack(order + "IIIBBH", at, symbol.address, 4, info, 0, symbol.section)
    head, segment, section = (64, 56, 64) if wide else (52, 32, 40)
    begin = head + segment
    places = [begin, begin + len(strings), begin + len(strings) + len(table)]
    headers = places[2] + len(names)
    out = b"\x7fELF" + bytes([1 + wide, 2 - little, 1]) + bytes(9)
    out += struct.pack(order + "HHI" + word * 3 + "IHHHHHH", 3, 62, 1, 0, head, headers, 0, head,
                       segment, 1, section, 4, 3)  # fmt: skip
    if wide:
        out += struct.pack(order + "IIQQQQQQ", PT_LOAD, 5, OFFSET, ADDRESS, ADDRESS,
                           SIZE, SIZE, 4096)  # fmt: skip
    else:
        out += struct.pack(order + "IIIIIIII", PT_LOAD, OFFSET, ADDRESS, ADDRESS, SIZE,
                           SIZE, 5, 4096)  # fmt: skip
    out += bytes(strings + table + names) + bytes(section)
    for label, kind, at, size, link, entry in (
        (1, SHT_SYMTAB, places[1], len(table), 2, 24 if wide else 16),
        (9, SHT_STRTAB, places[0], len(strings), 0, 0),
        (9, SHT_STRTAB, places[2], len(names), 0, 0),
    ):
        out += struct.pack(order + "II" + word * 4 + "II" + word * 2, label, kind, 0, 0, at, size,
                           link, 1, 1, entry)  # fmt: skip
    return out


SYMBOLS = [
    Symbol("domain", ADDRESS + 0x10),
    Symbol("main", ADDRESS + 0x40),
    Symbol("main_table", ADDRESS + 0x60, OBJECT),
    Symbol("twice", ADDRESS + 0x80, binding=LOCAL),
    Symbol("twice", ADDRESS + 0xC0, binding=LOCAL),
    Symbol("open", ADDRESS + 0x100, binding=LOCAL),
    Symbol("open", ADDRESS + 0x140),
    Symbol("imported", 0, section=0),
    Symbol("outside", ADDRESS + SIZE),
    Symbol("a+b", ADDRESS + 0x200),
]


@pytest.fixture
def program(tmp_path: Path, sysfs: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(assemble(SYMBOLS))
    return path


def one(text: str) -> Event:
    (event,) = parse(text)
    return event


@pytest.mark.parametrize("wide", [False, True], ids=["32 bit", "64 bit"])
@pytest.mark.parametrize("little", [False, True], ids=["big endian", "little endian"])
def test_a_function_is_found_in_every_kind_of_elf_file(
    tmp_path: Path, wide: bool, little: bool
) -> None:
    path = tmp_path / "program"
    path.write_bytes(assemble(SYMBOLS, wide, little))
    assert elf.function_offset(str(path), "main") == OFFSET + 0x40
    assert elf.function_offset(str(path), "domain") == OFFSET + 0x10


def test_a_uprobe_is_at_the_functions_offset_in_the_file(program: Path) -> None:
    event = one(f"uprobe:{program}:main")
    assert event.attr == Attr(type=8, config2=OFFSET + 0x40)
    assert event.path == str(program)
    assert event.name == event.text == f"uprobe:{program}:main"


def test_a_uprobe_may_be_inside_of_a_function_or_at_an_offset(program: Path) -> None:
    assert one(f"uprobe:{program}:main+0x4").attr.config2 == OFFSET + 0x44
    assert one(f"uprobe:{program}:main+4:u").attr.config2 == OFFSET + 0x44
    assert one(f"uprobe:{program}:0x1234").attr.config2 == 0x1234
    assert one(f"uprobe:{program}:a+b").attr.config2 == OFFSET + 0x200


def test_a_return_probe_has_the_bit_that_sysfs_names(program: Path) -> None:
    event = one(f"uretprobe:{program}:main/period=3/")
    assert event.attr == Attr(type=8, config=1, config2=OFFSET + 0x40, sample_period=3)


def test_a_path_is_made_absolute(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(program.parent)
    assert one("uprobe:program:main") == one(f"uprobe:{program}:main")


def test_a_visible_function_goes_before_a_local_one(program: Path) -> None:
    assert one(f"uprobe:{program}:open").attr.config2 == OFFSET + 0x140


def test_two_local_functions_of_one_name_are_offered_by_offset(program: Path) -> None:
    with pytest.raises(SpecError, match="0x1080, 0x10c0") as caught:
        parse(f"uprobe:{program}:twice")
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("symbol", ["mian", "main_table", "imported"])
def test_what_is_no_function_of_the_file_gets_close_names(program: Path, symbol: str) -> None:
    with pytest.raises(SpecError, match="no function") as caught:
        parse(f"uprobe:{program}:{symbol}")
    assert (caught.value.errno, caught.value.part) == (errno.ENOENT, symbol)
    if symbol == "mian":
        assert "main" in caught.value.suggestions


def test_a_function_outside_of_the_loaded_part_is_refused(program: Path) -> None:
    with pytest.raises(SpecError, match="0x401800 is in no loaded part"):
        parse(f"uprobe:{program}:outside")


def test_a_file_that_is_missing_or_no_elf_is_named(program: Path) -> None:
    for text in ("main", "0x10"):
        with pytest.raises(SpecError, match="missing") as caught:
            parse(f"uprobe:{program.parent}/missing:{text}")
        assert caught.value.errno == errno.ENOENT
    program.write_text("#!/bin/sh\n")
    with pytest.raises(SpecError, match="no ELF file"):
        parse(f"uprobe:{program}:main")


@given(st.binary(max_size=300), st.integers(0, 400))
def test_a_damaged_file_is_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    whole = assemble(SYMBOLS)
    path.write_bytes(whole[:at] + noise + whole[at + len(noise) :])
    try:
        elf.function_offset(str(path), "main")
    except SpecError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("text", ["uprobe:", "uprobe:/bin/x", "uprobe::main", "kprobe:"])
def test_a_probe_without_a_place_is_told_how_to_write_one(sysfs: Path, text: str) -> None:
    with pytest.raises(SpecError, match=r"write [uk]probe:") as caught:
        parse(text)
    assert caught.value.errno == errno.EINVAL


def test_a_term_that_would_move_the_probe_is_refused(program: Path) -> None:
    with pytest.raises(SpecError, match="config2=3") as caught:
        parse(f"uprobe:{program}:main/config2=3/")
    assert caught.value.part == "config2=3"


def test_a_kprobe_has_the_functions_name_and_the_offset_in_it(sysfs: Path) -> None:
    event = one("kprobe:do_exit+0x10:k")
    assert (event.attr.type, event.attr.config, event.attr.config2) == (7, 0, 16)
    assert (event.path, event.name) == ("do_exit", "kprobe:do_exit+0x10:k")
    assert one("kretprobe:do_exit").attr.config == 1
    at = one("kprobe:0xffffffff81000000")
    assert (at.path, at.attr.config2) == (None, 0xFFFFFFFF81000000)


def test_a_kernel_without_kprobes_says_so(sysfs: Path) -> None:
    (sysfs / "kprobe/type").unlink()
    with pytest.raises(SpecError, match="this kernel has none") as caught:
        parse("kprobe:do_exit")
    assert caught.value.errno == errno.ENODEV
