"""perfkeep.symbols.demangle: names as they were written, and any other as it is."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.symbols.demangle import demangle
from perfkeep.symbols.table import from_kallsyms


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("_ZNSt6vectorIiSaIiEE9push_backERKi", "std::vector<int, std::allocator<int> >::push_back(int const&)"),
        ("_ZN4core3fmt9Formatter3pad17h4bd5bd8cd8f6b6f5E", "core::fmt::Formatter::pad"),
        ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
        ("main", "main"), ("_Znothing", "_Znothing"), ("_Rnothing", "_Rnothing"),
        ("_Z" + "1a" * 4000, "_Z" + "1a" * 4000),
    ],
)  # fmt: skip
def test_names_are_those_that_were_written(name: str, written: str) -> None:
    assert demangle(name) == written


def test_a_name_that_would_grow_without_end_stays_as_it_is() -> None:
    grown = "_Z1f1AIiiE"
    for number in range(40):
        reference = f"S{number - 1 if number > 1 else ''}_"
        grown += f"S_I{reference}{reference}E"
        assert len(demangle(grown)) < 1 << 20
    grown = "_RIC1f" + "T" * 60 + "a" + "".join(f"B{one}_E" for one in range(60)) + "E"
    assert demangle(grown) == grown


def test_it_agrees_with_the_tool_that_people_use() -> None:
    if shutil.which("c++filt") is None:
        pytest.skip("there is no c++filt")
    names = ["_ZSt4cout", "_ZdlPvm", "_ZNKSt9exception4whatEv", "_ZTVN10__cxxabiv117E"]
    got = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    assert [demangle(name) for name in names] == got.stdout.splitlines()


def test_a_table_gives_them_so() -> None:
    table = from_kallsyms(b"%016x T _ZN3foo3barEv\n" % 0x1000)
    assert table.names_of(np.array([0x1000], "u8")) == ["foo::bar()"]


@given(
    st.sampled_from(["_Z", "_ZN", "_R", "_RNv"]), st.text("NEIKRSTZ_0123456789abcstv", max_size=60)
)
def test_any_name_is_a_name(prefix: str, rest: str) -> None:
    assert demangle(prefix + rest)
