"""perfkeep.symbols.table and elf: from addresses to names."""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("numpy")

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.errors import DataError
from perfkeep.symbols import elf
from perfkeep.symbols.build_id import of_file
from perfkeep.symbols.elf import image
from perfkeep.symbols.identity import Identity
from perfkeep.symbols.table import SymbolTable, from_kallsyms

KALLSYMS = b"""ffffffff81000000 T _text
ffffffff81000000 T _stext
ffffffff81000100 t do_one
ffffffff81000200 D some_data
ffffffff81000300 W weak_one
ffffffffc0000000 t of_module\t[nf_nat]
garbage line here
"""


def table(*symbols: tuple[int, int, str]) -> SymbolTable:
    names, places = b"", []
    for _, _, name in symbols:
        places.append(len(names))
        names += name.encode() + b"\0"
    starts, sizes = (np.array([one[at] for one in symbols], "u8") for at in (0, 1))
    return SymbolTable(starts, sizes, names, np.array(places, "i8"))


def test_an_address_belongs_to_the_symbol_that_covers_it() -> None:
    some = table((30, 5, "b"), (10, 10, "a"), (40, 0, "open"))
    found = some.names_of(np.array([9, 10, 19, 20, 30, 34, 35, 40, 10**9], "u8"))
    assert found == [None, "a", "a", None, "b", "b", None, "open", "open"]


def test_of_several_at_one_place_the_longest_counts() -> None:
    some = table((10, 2, "short"), (10, 8, "long"), (10, 0, "mark"))
    assert some.names_of(np.array([10, 17], "u8")) == ["long", "long"]


def test_one_that_says_no_size_ends_with_its_section() -> None:
    starts, sizes = np.array([10, 50], "u8"), np.array([0, 0], "u8")
    names, places = b"init\0last\0", np.array([0, 5], "i8")
    some = SymbolTable(starts, sizes, names, places, np.array([20, 60], "u8"))
    found = some.names_of(np.array([19, 20, 49, 59, 60], "u8"))
    assert found == ["init", None, None, "last", None]


def test_without_symbols_nothing_has_a_name() -> None:
    assert table().names_of(np.array([1, 2], "u8")) == [None, None]


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 20)), max_size=10),
    st.lists(st.integers(0, 250), max_size=10),
)
def test_no_symbol_is_named_that_does_not_reach_so_far(
    symbols: list[tuple[int, int]], addresses: list[int]
) -> None:
    some = table(*((start, size, f"{start}:{size}") for start, size in symbols))
    for address, name in zip(addresses, some.names_of(np.array(addresses, "u8")), strict=True):
        if name is not None:
            start, size = map(int, name.split(":"))
            assert start <= address and (not size or address < start + size)


def test_kallsyms_gives_code_and_nothing_when_its_addresses_are_hidden() -> None:
    some = from_kallsyms(KALLSYMS)
    wanted = [0xFFFFFFFF81000150, 0xFFFFFFFF81000350, 0xFFFFFFFFC0000010]
    assert some.names_of(np.array(wanted, "u8")) == ["do_one", "weak_one", "of_module"]
    hidden = re.sub(rb"^[0-9a-f]{16}", b"0" * 16, KALLSYMS, flags=re.M)
    assert len(from_kallsyms(hidden)) == 0


@given(
    st.lists(
        st.sampled_from(
            [b"ffffffff81000000", b"0" * 16, b"ffffffff81000010", b"81000000", b"zz", b" ", b" T ",
             b" t ", b" d ", b"name", b"other\t[module]", b"\n", b"\n", b"\xff\0"]
        ),
        max_size=30,
    ).map(b"".join)
)  # fmt: skip
def test_of_anything_it_takes_the_lines_that_are_of_code(text: bytes) -> None:
    lines = re.finditer(rb"^([0-9a-f]{16}) [tTwW] ([^\n\t][^\n]*|\t[^\n]*)", text, re.MULTILINE)
    expected = {
        int(one[1], 16): one[2].split(b"\t")[0].split(b"\0")[0].decode(errors="replace")
        for one in lines
    }
    expected.pop(0, None)
    some = from_kallsyms(text)
    assert dict(zip(some.starts.tolist(), some.names_of(some.starts), strict=True)) == expected


LOCAL, GLOBAL, WEAK = 0, 1, 2


def symbol_table(*symbols: tuple[int, str, int]) -> tuple[np.ndarray, bytes]:
    """A symbol table with functions of 10 bytes, of (address, name, binding), and its names."""
    table, names = np.zeros(len(symbols), elf._SYMBOL_64), b"\0"
    for row, (address, name, binding) in zip(table, symbols, strict=True):
        row["name"], row["info"], row["section"] = len(names), binding << 4 | 2, 1
        row["value"], row["size"] = address, 10
        names += name.encode() + b"\0"
    return table, names


def name_of(*symbols: tuple[str, int]) -> str | None:
    """Name of the address at which all of these are."""
    tables = [(True, *symbol_table(*((16, *symbol) for symbol in symbols)))]
    (name,) = elf._symbols(tables, np.zeros(2, "u8")).names_of(np.array([16], "u8"))
    return name


def test_of_aliases_the_name_is_the_one_that_stock_perf_prints() -> None:
    assert name_of(("weak", WEAK), ("local", LOCAL)) == "local"
    assert name_of(("global", GLOBAL), ("__GI_global", LOCAL)) == "global"
    assert name_of(("__GI___execve", LOCAL), ("__execve", LOCAL)) == "__GI___execve"
    assert name_of(("read", WEAK), ("__read", WEAK)) == "read"
    assert name_of(("__memcpy_erms", LOCAL), ("__memmove_erms", LOCAL)) == "__memmove_erms"
    assert name_of(("_loop0_96_rule", LOCAL), ("_loop0_97_rule", LOCAL)) == "_loop0_96_rule"


def test_the_table_of_all_symbols_comes_before_that_of_exported_ones() -> None:
    full, exported = (
        symbol_table((16, "__GI___f", LOCAL)),
        symbol_table((16, "f", GLOBAL), (32, "g", WEAK)),
    )
    symbols = elf._symbols([(False, *exported), (True, *full)], np.zeros(2, "u8"))
    assert symbols.names_of(np.array([16, 32], "u8")) == ["__GI___f", "g"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["f", "_f", "__f", "f_g", "_", "__", ""]), st.sampled_from([LOCAL, GLOBAL, WEAK])
        ),
        min_size=1, max_size=8,
    )
)  # fmt: skip
def test_the_order_of_aliases_is_that_of_stock_perf(symbols: list[tuple[str, int]]) -> None:
    def worth(symbol: tuple[str, int]) -> tuple[bool, bool, int, int]:
        name, binding = symbol
        underscores = len(name) - len(name.lstrip("_"))
        return binding != WEAK, binding == GLOBAL, -underscores, len(name)

    assert name_of(*symbols) == max(symbols, key=worth)[0]  # of equals the first


def test_a_function_of_the_c_library_is_found_by_its_place_in_the_file() -> None:
    address = ctypes.cast(ctypes.CDLL(None).getpriority, ctypes.c_void_p).value
    assert address is not None
    for line in Path("/proc/self/maps").read_text().splitlines():
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \d+ +(/.*)", line)
        if found and int(found[1], 16) <= address < int(found[2], 16):
            break
    else:
        pytest.fail("the C library is not mapped")
    offset = address - int(found[1], 16) + int(found[3], 16)
    build = of_file(found[4].encode())
    one = image(found[4], Identity(build.hex() if build else ""))
    (name,) = one.symbols.names_of(one.addresses(np.array([offset], "u8")))
    assert name is not None and name.endswith("getpriority")
    with pytest.raises(DataError, match="another build"):
        image(found[4], Identity("ab" * 20))


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"x" * 200])
def test_what_is_no_elf_file_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError):
        image(str(tmp_path / "x"))


@given(st.data())
def test_a_damaged_elf_file_is_told_or_read(data: st.DataObject) -> None:
    import tempfile

    with open("/bin/true", "rb") as file:
        whole = bytearray(file.read(1 << 16))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, min(len(whole), 4096) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.NamedTemporaryFile() as file:
        file.write(whole)
        file.flush()
        with suppress(DataError):
            assert image(file.name).symbols is not None
