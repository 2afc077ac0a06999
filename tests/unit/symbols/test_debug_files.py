"""perfkeep.symbols.elf: what was moved out of a file is found where debuggers look for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from perfkeep.errors import DataError
from perfkeep.symbols import elf
from perfkeep.symbols.elf import image
from perfkeep.symbols.identity import Identity

SOURCE = (
    "static __attribute__((noinline)) int hidden(int x) { return x * 7; }\n"
    "int main(int count, char **words) { return hidden(count); }\n"
)


@pytest.fixture
def stripped(tmp_path: Path) -> Path:
    """A program without symbols, beside its debug file."""
    if not all(map(shutil.which, ("cc", "objcopy", "strip"))):
        pytest.skip("no compiler, or no binutils")
    (tmp_path / "x.c").write_text(SOURCE)
    program, debug = tmp_path / "x", tmp_path / "x.debug"
    for command in (
        ["cc", "-O1", "-Wl,--build-id=none", "-o", program, tmp_path / "x.c"],
        ["objcopy", "--only-keep-debug", program, debug],
        ["strip", program],
        ["objcopy", f"--add-gnu-debuglink={debug}", program],
    ):
        subprocess.run([str(word) for word in command], check=True)
    return program


def names(path: Path) -> list[str | None]:
    symbols = image(str(path)).symbols
    return symbols.names_of(symbols.starts)


@pytest.mark.parametrize("place", [".", ".debug", "elsewhere"])
def test_symbols_are_found_by_the_debug_link(
    stripped: Path, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    debug = stripped.with_name("x.debug")
    if place == ".debug":
        (tmp_path / ".debug").mkdir()
        debug.rename(tmp_path / ".debug" / "x.debug")
    elif place == "elsewhere":
        monkeypatch.setattr(elf, "DEBUG", str(tmp_path / "root"))
        folder = Path(f"{tmp_path}/root{tmp_path}")
        folder.mkdir(parents=True)
        debug.rename(folder / "x.debug")
    assert "hidden" in names(stripped)


def test_a_debug_file_of_another_build_is_not_taken(stripped: Path) -> None:
    with open(stripped.with_name("x.debug"), "ab") as debug:
        debug.write(b"x")
    assert "hidden" not in names(stripped)
    stripped.with_name("x.debug").unlink()
    assert "hidden" not in names(stripped)


def test_what_has_another_build_id_or_none_is_not_taken_for_the_one_that_ran(
    stripped: Path,
) -> None:
    with pytest.raises(DataError, match="another build"):
        image(str(stripped), Identity("ab" * 20))


def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    with pytest.raises(OSError, match="no plain file"):
        image(str(tmp_path / "x"))
