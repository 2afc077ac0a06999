"""perfkeep.symbols.vdso: functions of the code that the kernel maps into each process."""

from __future__ import annotations

import ctypes

import pytest

pytest.importorskip("numpy")

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.analysis.mappings import Mapping, Mappings, Space
from perfkeep.analysis.symbolize import Symbolizer
from perfkeep.errors import DataError
from perfkeep.symbols import vdso
from perfkeep.symbols.build_id import in_notes, of_bytes

_AT_SYSINFO_EHDR = 33
#: Global ones, of x86_64 and of aarch64; the former has `gettimeofday` at the same place.
NAMES = ("__vdso_gettimeofday", "__kernel_gettimeofday")


@pytest.fixture(scope="module")
def start() -> int:
    """Where the kernel says that it lies in this process."""
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    found = getauxval(_AT_SYSINFO_EHDR)
    if not found:
        pytest.skip("this process has no vdso")
    return int(found)


@pytest.fixture(scope="module")
def function() -> tuple[str, int]:
    """One of its functions, and where the dynamic loader finds it."""
    try:
        library = ctypes.CDLL("linux-vdso.so.1")
    except OSError:
        pytest.skip("this C library does not open the vdso")
    for name in NAMES:
        if hasattr(library, name):
            return name, ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
    pytest.skip("its functions are called otherwise on this machine")


def build_id(start: int) -> str:
    found = of_bytes(ctypes.string_at(start, 4096))
    assert found is not None
    return found.hex()


def kernel_build_id() -> str:
    with open("/sys/kernel/notes", "rb") as file:
        found = in_notes(file.read())
    assert found is not None
    return found.hex()


def name(
    start: int, address: int, mapped: int | None = None, build_id: str = "",
    same_boot: bool = False, build_ids: dict[str, str] | None = None,
) -> str:  # fmt: skip
    """What the Symbolizer calls an address of a process that had it at `mapped`."""
    at = start if mapped is None else mapped
    mappings = Mappings([])
    mappings.spaces.append(Space(5, [Mapping(at, at + 0x4000, 0, vdso.NAME, build_id)]))
    there = address - start + at
    symbolizer = Symbolizer(mappings, None, build_ids, same_boot)
    _, _, (found,) = symbolizer.frames(np.array([2], "i8"), np.array([there], "u8"))
    assert found.file == "[vdso]"
    assert symbolizer.place(2, there).name in (found.name, "")
    return found.name


def test_a_function_of_the_vdso_has_the_name_by_which_the_loader_finds_it(
    start: int, function: tuple[str, int]
) -> None:
    wanted, address = function
    inside, unnamed = address + 3, f"[vdso]+{address + 3 - start:#x}"
    assert name(start, inside, same_boot=True) == wanted
    # Each process has it elsewhere.
    assert name(start, inside, start ^ 1 << 30, same_boot=True) == wanted
    # Nothing says that it is of the kernel that runs now.
    assert name(start, inside) == unnamed
    # A process of 32 bits has another one.
    if start >> 32:
        assert name(start, inside, 0xF7000000, same_boot=True) == unnamed


def test_the_build_id_says_whether_it_is_the_vdso_of_then(
    start: int, function: tuple[str, int]
) -> None:
    wanted, address = function
    unnamed, other = f"[vdso]+{address - start:#x}", "ab" * 20
    own, of_kernel = build_id(start), kernel_build_id()
    assert name(start, address, build_id=own) == wanted
    assert name(start, address, build_ids={"[vdso]": own}) == wanted
    assert name(start, address, build_ids={"[kernel.kallsyms]": of_kernel}) == wanted
    # Its own counts more than that of the kernel.
    assert name(start, address, build_ids={"[vdso]": own, "[kernel.kallsyms]": other}) == wanted
    assert name(start, address, build_id=other, same_boot=True) == unnamed
    assert name(start, address, build_ids={"[vdso]": other}, same_boot=True) == unnamed
    assert name(start, address, build_ids={"[kernel.kallsyms]": other}, same_boot=True) == unnamed


def test_another_vdso_is_told(start: int) -> None:
    with pytest.raises(DataError, match="another one than that of then"):
        vdso.vdso(start, "ab" * 20)
    with pytest.raises(DataError, match="another width"):
        vdso.vdso(0x1000 if start >> 32 else 1 << 40)


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1), st.integers(0, 2**16 - 1))
def test_any_bytes_have_a_build_id_or_none(rest: bytes, at: int, count: int) -> None:
    head = b"\x7fELF\2\1\1" + bytes(25) + at.to_bytes(8, "little") + bytes(14)
    data = head + (56).to_bytes(2, "little") + count.to_bytes(2, "little") + bytes(4) + rest
    found = of_bytes(data)
    assert found is None or found in data
