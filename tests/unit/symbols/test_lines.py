"""perfkeep.symbols.lines: whatever a file is, its lines are read or nobody knows them."""

from __future__ import annotations

import os
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


def test_a_place_without_room_for_what_is_kept_keeps_nothing_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "perfkeep").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = os.path.realpath("/proc/self/exe")
    found = lines(program, 0, "ab")
    assert found is not None and found.at(1 << 40) == []
