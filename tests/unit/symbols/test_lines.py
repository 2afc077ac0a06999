"""perfkeep.symbols.lines: whatever a file is, its lines are read or nobody knows them."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.symbols.lines import lines

pytest.importorskip("symbolic", reason="without the extra `lines` nobody reads DWARF")


@given(data=st.binary(max_size=300) | st.binary(max_size=300).map(lambda one: b"\x7fELF\2\1" + one))
def test_of_what_is_no_file_with_dwarf_nothing_is_known(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "rubbish"
    path.write_bytes(data)
    found = lines(str(path), 0)
    assert found is None or found.at(0) == []


class Something:
    pass


@pytest.mark.parametrize("kept", [True, False], ids=["what was kept", "the file"])
def test_what_is_damaged_keeps_nothing_of_its_callers_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "perfkeep" / "lines"
    folder.mkdir(parents=True)
    (folder / "ab").write_bytes(b"rubbish")
    path = os.path.realpath("/proc/self/exe") if kept else str(folder / "ab")

    def read() -> weakref.ref[Something]:
        something = Something()
        lines(path, 0, "ab" if kept else "cd")
        return weakref.ref(something)

    gc.disable()
    try:
        assert read()() is None
    finally:
        gc.enable()


def test_a_place_without_room_for_what_is_kept_keeps_nothing_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "perfkeep").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = os.path.realpath("/proc/self/exe")
    found = lines(program, 0, "ab")
    assert found is not None and found.at(1 << 40) == []
