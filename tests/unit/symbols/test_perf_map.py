"""perfkeep.symbols.perf_map: functions that a just-in-time compiler made have the names it gave."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.symbols import perf_map
from perfkeep.symbols.perf_map import of_process, parse


def named(text: bytes, *addresses: int) -> list[str | None]:
    return parse(text).names_of(np.array(addresses, "u8"))


def test_a_function_is_found_by_any_address_in_it() -> None:
    text = b"1000 20 py::main:/x.py\n0x2000 0x10 LazyCompile:~f with spaces\n"
    found = named(text, 0x1000, 0x101F, 0x1020, 0x2008)
    assert found == ["py::main:/x.py", "py::main:/x.py", None, "LazyCompile:~f with spaces"]


def test_code_that_was_made_again_at_a_place_counts() -> None:
    assert named(b"1000 20 old\n1000 8 new\n", 0x1004, 0x1010) == ["new", None]


def test_what_is_no_line_is_left_out() -> None:
    assert named(b"junk\n1000 zz x\n2000 10 \n3000 10 good\n" + b"4000 10 torn", 0x3000) == ["good"]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_map(text: bytes) -> None:
    names = parse(text).names_of(np.array([0, 1, 2**64 - 1], "u8"))
    assert len(names) == 3
    assert all(name is None or name in text.decode(errors="replace") for name in names)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the map of a process that has ended would lie."""
    path = tmp_path / "perf.map"
    monkeypatch.setattr(perf_map, "path_of", lambda pid: str(path))
    return path


def test_a_map_of_somebody_else_or_behind_a_link_is_not_believed(written: Path) -> None:
    nobody = 2**22 + 1
    assert of_process(nobody) is None
    written.write_text("1000 10 f\n")
    assert of_process(nobody) is not None
    if os.geteuid() == 0:
        os.chown(written, 1, 1)
        assert of_process(nobody) is None
    written.unlink()
    written.symlink_to("/etc/passwd")
    assert of_process(nobody) is None
    written.unlink()
    os.mkfifo(written)
    assert of_process(nobody) is None
