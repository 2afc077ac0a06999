"""Build ids of ELF files."""

from __future__ import annotations

import resource
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.symbols import build_id

NOTE = struct.pack("=III", 4, 20, 3) + b"GNU\0" + bytes(range(20))


def elf(notes: bytes) -> bytes:
    """The least 64-bit ELF file that has a PT_NOTE."""
    header = b"\x7fELF" + bytes([2, 1 if sys.byteorder == "little" else 2, 1]) + bytes(9)
    header += struct.pack("=HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    program = struct.pack("=IIQQQQQQ", 4, 4, 120, 0, 0, len(notes), len(notes), 4)
    return header + program + notes


def test_the_note_of_the_linker_is_found_among_others(tmp_path: Path) -> None:
    other = struct.pack("=III", 4, 16, 1) + b"GNU\0" + bytes(16)
    (tmp_path / "x").write_bytes(elf(other + NOTE))
    assert build_id.of_file(bytes(tmp_path / "x")) == bytes(range(20))


@pytest.mark.parametrize("wide", [True, False])
def test_a_note_in_a_section_only_is_found_as_perf_inject_writes_it(wide: bool) -> None:
    order = 1 if sys.byteorder == "little" else 2
    header = b"\x7fELF" + bytes([2 if wide else 1, order, 1]) + bytes(9)
    if wide:
        header += struct.pack("=HHIQQQIHHHHHH", 3, 62, 1, 0, 0, 64, 0, 64, 0, 0, 64, 2, 0)
        empty, layout = bytes(64), "=IIQQQQIIQQ"
    else:
        header += struct.pack("=HHIIIIIHHHHHH", 3, 3, 1, 0, 0, 64, 0, 52, 0, 0, 40, 2, 0) + bytes(
            12
        )
        empty, layout = bytes(40), "=IIIIIIIIII"
    notes_at = 64 + 2 * len(empty)
    notes = struct.pack(layout, 1, 7, 2, 0, notes_at, len(NOTE), 0, 0, 4, 0)
    assert build_id.of_bytes(header + empty + notes + NOTE) == bytes(range(20))


def test_a_file_that_is_replaced_gets_its_new_id(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(elf(NOTE))
    assert build_id.of_file(bytes(path)) == bytes(range(20))
    path.unlink()
    path.write_bytes(elf(NOTE[:16] + bytes(20)) + b"longer")
    assert build_id.of_file(bytes(path)) == bytes(20)


NOWHERE = elf(NOTE)[:72] + struct.pack("=Q", 2**63) + elf(NOTE)[80:]


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", elf(b""), elf(NOTE)[:100], NOWHERE])
def test_what_has_none_gives_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    assert build_id.of_file(bytes(tmp_path / "x")) is None


def test_headers_of_absurd_size_cost_no_memory(tmp_path: Path) -> None:
    vast = bytearray(elf(NOTE))
    struct.pack_into("=HH", vast, 54, 0xFFFF, 0xFFFF)
    (tmp_path / "x").write_bytes(vast)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + (1 << 30), limits[1]))
    try:
        assert build_id.of_file(bytes(tmp_path / "x")) is None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_a_file_that_is_not_there_gives_none(tmp_path: Path) -> None:
    assert build_id.of_file(bytes(tmp_path / "nothing")) is None


def test_the_running_python_has_one_that_readelf_would_show() -> None:
    found = build_id.of_file(Path(sys.executable).resolve().as_posix().encode())
    assert found is None or len(found) in (8, 16, 20)


@given(st.binary(max_size=300))
def test_any_bytes_are_notes_or_none(data: bytes) -> None:
    found = build_id.in_notes(data)
    assert found is None or found in data
