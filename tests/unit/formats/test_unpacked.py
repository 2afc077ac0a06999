"""perfkeep.formats.perf_data.unpacked: what perf puts between records is taken out."""

from __future__ import annotations

import struct
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_data import MAGIC, Feature
from perfkeep.abi.records import UserRecord
from perfkeep.errors import DataError, PerfkeepError
from perfkeep.extras import install_command
from perfkeep.formats.perf_data.reader import parse
from perfkeep.formats.perf_data.unpacked import Unpacked, unpack
from perfkeep.testing.assembler import Assembler

EVENT = Assembler()
SAMPLES = [EVENT.sample(time) for time in range(5)]


def zstd() -> Any:
    if sys.version_info >= (3, 14):
        return pytest.importorskip("compression.zstd")
    return pytest.importorskip("backports.zstd")


def own(kind: int, body: bytes = b"") -> bytes:
    return struct.pack("=IHH", kind, 0, 8 + len(body)) + body


def unpacked(*parts: bytes) -> Unpacked:
    return unpack(memoryview(b"".join(parts)), 0)


def attr(name: str = "cpu-clock") -> bytes:
    packed = EVENT.attr.pack()
    update = struct.pack("=QQ", 2, 7) + name.encode().ljust(16, b"\0")
    body = packed + struct.pack("=Q", 7)
    return own(UserRecord.HEADER_ATTR, body) + own(UserRecord.EVENT_UPDATE, update)


def compressed(*samples: bytes, kind: int = UserRecord.COMPRESSED, cut: int = 13) -> list[bytes]:
    """One stream in several records, none of which ends where a sample does."""
    packer = zstd().ZstdCompressor()
    whole, parts = b"".join(samples), []
    for at in range(0, len(whole), cut):
        block = packer.compress(whole[at : at + cut], mode=packer.FLUSH_BLOCK)
        if kind == UserRecord.COMPRESSED2:
            block = struct.pack("=Q", len(block)) + block + bytes(-len(block) % 8)
        parts.append(own(kind, block))
    return parts


def test_plain_records_stay_as_they_are() -> None:
    assert bytes(unpacked(*SAMPLES).data) == b"".join(SAMPLES)


def test_perf_s_own_records_are_taken_out_with_what_lies_behind_them() -> None:
    aux = own(UserRecord.AUXTRACE, struct.pack("=Q", 24) + bytes(32)) + b"\xff" * 24
    tracing = own(UserRecord.HEADER_TRACING_DATA, struct.pack("=I", 5)) + b"TRACE\0\0\0"
    found = unpacked(
        SAMPLES[0], aux, SAMPLES[1], tracing, own(UserRecord.FINISHED_ROUND), SAMPLES[2]
    )
    assert bytes(found.data) == b"".join(SAMPLES[:3])
    assert (found.aux_bytes, found.unread) == (24, 0)
    assert bytes(found.features[Feature.TRACING_DATA]) == b"TRACE"


@pytest.mark.parametrize("kind", [UserRecord.COMPRESSED, UserRecord.COMPRESSED2])
def test_what_is_compressed_is_put_in_its_place(kind: int) -> None:
    found = unpacked(SAMPLES[0], *compressed(*SAMPLES[1:4], kind=kind), SAMPLES[4])
    assert bytes(found.data) == b"".join(SAMPLES) and found.unread == 0


def test_what_was_compressed_and_is_cut_off_is_counted() -> None:
    parts = compressed(*SAMPLES[:2])
    found = unpacked(*parts[:-1])
    assert bytes(found.data) == SAMPLES[0]
    assert 0 < found.unread < len(SAMPLES[1])


def test_a_bomb_is_refused() -> None:
    packer = zstd().ZstdCompressor()
    bomb = packer.compress(bytes(64 << 20), mode=packer.FLUSH_BLOCK)
    with pytest.raises(DataError, match="stand for more than"):
        unpacked(own(UserRecord.COMPRESSED, bomb))


def test_what_is_damaged_is_told_with_its_place() -> None:
    zstd()
    with pytest.raises(DataError, match="compressed cannot be read") as caught:
        unpacked(SAMPLES[0], own(UserRecord.COMPRESSED, b"\0garbage"))
    assert caught.value.offset == len(SAMPLES[0])


def test_without_zstd_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports"
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PerfkeepError) as caught:
        unpacked(own(UserRecord.COMPRESSED, b"x"))
    assert caught.value.hint == install_command("analysis")


def test_a_file_that_went_through_a_pipe_is_read_like_any_other() -> None:
    head = MAGIC + struct.pack("=Q", 16)
    file = parse(memoryview(head + attr("my-clock") + b"".join(SAMPLES)))
    (event,) = file.events
    assert (event.name, event.all_ids, event.attr) == ("my-clock", [7], EVENT.attr)
    assert len(list(file.records())) == len(SAMPLES)


@pytest.mark.parametrize(
    "body", [b"", bytes(8), struct.pack("=II", 0, 4096) + bytes(64)], ids=["none", "short", "long"]
)
def test_an_attr_that_does_not_fit_is_told(body: bytes) -> None:
    with pytest.raises(DataError, match="does not fit its record"):
        unpacked(own(UserRecord.HEADER_ATTR, body))


@given(st.binary(max_size=300), st.lists(st.sampled_from(list(UserRecord)), max_size=3))
def test_anything_is_read_or_told(data: bytes, kinds: list[int]) -> None:
    parts = [own(kind, data[at : at + 40]) for at, kind in enumerate(kinds)]
    try:
        found = unpacked(*parts, data)
    except (DataError, PerfkeepError):
        return
    assert len(found.data) % 8 == 0
