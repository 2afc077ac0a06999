"""perfkeep.symbols.jitdump: code that a just-in-time compiler made has the names it gave."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import pytest

pytest.importorskip("numpy")

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.errors import DataError
from perfkeep.symbols.jitdump import parse, pid_in, read

PID = 77


def header(magic: int = 0x4A695444, version: int = 1, size: int = 40, pid: int = PID) -> bytes:
    return struct.pack("=IIIIIIQQ", magic, version, size, 62, 0, pid, 0, 0) + bytes(size - 40)


def event(kind: int, body: bytes) -> bytes:
    return struct.pack("=IIQ", kind, 16 + len(body), 5) + body


def load(address: int, size: int, name: bytes) -> bytes:
    body = struct.pack("=IIQQQQ", PID, PID, address, address, size, 1) + name + b"\0" + bytes(size)
    return event(0, body)


def move(old: int, new: int, size: int) -> bytes:
    return event(1, struct.pack("=IIQQQQQ", PID, PID, new, old, new, size, 1))


def named(data: bytes, *addresses: int) -> list[str | None]:
    return parse(io.BytesIO(data), PID).names_of(np.array(addresses, "u8"))


def test_code_is_found_where_it_lies_now() -> None:
    data = header(size=48) + load(0x1000, 32, b"old") + load(0x2000, 8, b"g") + event(2, bytes(16))
    data += load(0x1000, 16, b"f") + move(0x2000, 0x3000, 8) + event(3, b"") + load(0x9000, 8, b"h")
    found = named(data, 0x1000, 0x1010, 0x2000, 0x3007, 0x9000)
    assert found == ["f", None, None, "g", None]


def test_a_file_that_is_still_written_is_read_up_to_there() -> None:
    whole = header() + load(0x1000, 16, b"f") + load(0x2000, 16, b"g")
    assert named(whole[:-20], 0x1000) == ["f"]
    assert named(whole[:-60], 0x1000, 0x2000) == ["f", None]


@pytest.mark.parametrize(
    "data",
    [b"", header()[:-1], header(magic=0x4454694A), header(version=2), header(pid=78)],
    ids=["empty", "short", "other byte order", "newer", "another process"],
)
def test_what_is_no_jitdump_of_that_process_is_refused(data: bytes) -> None:
    with pytest.raises(DataError):
        parse(io.BytesIO(data), PID)


# What is no code, moves none, or is too short to be either.
NO_CODE = st.tuples(st.sampled_from([1, 2, 4, 5]), st.binary(max_size=80)) | st.tuples(
    st.just(0), st.binary(max_size=40)
)


@given(st.lists(NO_CODE, max_size=5), st.binary(max_size=15))
def test_code_is_found_behind_whatever_else_is_told(
    events: list[tuple[int, bytes]], rest: bytes
) -> None:
    data = header() + b"".join(event(*one) for one in events) + load(0x1000, 16, b"f") + rest
    assert named(data, 0x1000, 0xFFF, 0x1010) == ["f", None, None]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_jitdump_or_refused(rest: bytes) -> None:
    found = parse(io.BytesIO(header() + rest), PID)
    assert len(found.starts) <= len(rest) // 56


def test_its_name_says_whose_it_is(tmp_path: Path) -> None:
    assert (pid_in("/x/jit-77.dump"), pid_in("jit-7.dump.x"), pid_in("/x/libjit-7.so")) == (
        PID, None, None,
    )  # fmt: skip
    path = tmp_path / "jit-77.dump"
    assert read(str(path), 2**22 + 1) is None
    path.write_bytes(header() + load(0x1000, 16, b"f"))
    assert read(str(path), 2**22 + 1) is not None
    if os.geteuid() == 0:
        os.chown(path, 1, 1)
        assert read(str(path), 2**22 + 1) is None
