"""perfkeep.wire.spill: what is not whole is never taken for what it is not."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.errors import DataError
from perfkeep.wire import spill
from perfkeep.wire.spill import (
    COMMIT,
    INTENT,
    SLOT_A,
    SLOT_B,
    SLOT_I,
    Meta,
    Slot,
    pack_meta,
    parse_meta,
    parse_slot,
    pieces,
    ring_state,
)
from perfkeep.wire.structs import Owner, RecordingInfo, Ring, Target

BOOT = "12345678-1234-1234-1234-123456789012"
U64 = st.integers(0, 2**64 - 1)
SIZES = st.sampled_from([4096, 65536, 1 << 23])


@st.composite
def slots(draw: st.DrawFn) -> Slot:
    size = draw(SIZES)
    return Slot(
        draw(st.sampled_from([COMMIT, INTENT])),
        draw(st.booleans()),
        draw(st.integers(0, 65535)),
        draw(st.integers(0, 1)),
        draw(U64),
        size,
        draw(U64),
        draw(st.integers(0, size)),
        draw(U64),
        draw(U64),
        BOOT,
    )


@given(slots())
def test_a_slot_is_read_as_it_was_written(slot: Slot) -> None:
    assert parse_slot(slot.pack()) == slot


@given(slots(), st.data())
def test_a_slot_with_a_byte_changed_or_cut_off_is_none(slot: Slot, data: st.DataObject) -> None:
    packed = bytearray(slot.pack())
    at = data.draw(st.integers(0, len(packed) - 1))
    assert parse_slot(bytes(packed[:at])) is None
    packed[at] ^= data.draw(st.integers(1, 255))
    assert parse_slot(bytes(packed)) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_a_slot_or_none(data: bytes) -> None:
    assert parse_slot(data) is None


def page(**slots: Slot) -> bytes:
    image = bytearray(spill.PAGE)
    for name, slot in slots.items():
        at = {"a": SLOT_A, "b": SLOT_B, "i": SLOT_I}[name]
        packed = slot.pack()
        image[at : at + len(packed)] = packed
    return bytes(image)


def slot(what: int, sequence: int, head: int, valid: int = 4096, area: int = 0) -> Slot:
    return Slot(what, True, 0, area, sequence, 4096, head % 2**64, valid, 1, 2, BOOT)


def test_the_newest_commit_counts_and_an_intent_behind_it_takes_away_the_oldest() -> None:
    older, newer = slot(COMMIT, 2, -5000), slot(COMMIT, 4, -6000)
    assert ring_state(page(a=older, b=newer)).slot == newer
    assert ring_state(page(a=older, b=newer, i=slot(INTENT, 3, -6000))).valid == 4096
    assert ring_state(page(a=older, b=newer, i=slot(INTENT, 5, -7000))).valid == 3096
    assert ring_state(page(a=older, b=newer, i=slot(INTENT, 5, -70000))).valid == 0
    assert ring_state(page(a=older, b=newer, i=slot(INTENT, 5, -7000, area=1))).valid == 4096
    # What does not reach round to the oldest takes nothing away.
    short = slot(COMMIT, 4, -6000, valid=1000)
    assert ring_state(page(b=short, i=slot(INTENT, 5, -7000))).valid == 1000


def test_without_a_commit_there_is_nothing() -> None:
    for image in (bytes(spill.PAGE), b"", page(i=slot(INTENT, 1, -10)), b"\xff" * 4096):
        with pytest.raises(DataError):
            ring_state(image)


@given(st.integers(0, 2**64 - 1), SIZES, st.data(), st.booleans())
def test_pieces_are_the_bytes_of_the_stream_in_order(
    head: int, size: int, data: st.DataObject, backward: bool
) -> None:
    count = data.draw(st.integers(0, size))
    found = [at for low, high in pieces(head, count, size, backward) for at in (low, high)]
    total = sum(high - low for low, high in pieces(head, count, size, backward))
    assert total == count
    if count:
        assert found[0] == (head if backward else head - count) % size
        assert (found[-1] - 1) % size == ((head + count if backward else head) - 1) % size


def meta(name: str) -> Meta:
    info = RecordingInfo(
        name, 1, "running", 0, Owner(0, 0, 1, ""), 0, 0, Ring("backward", 4096), Target(), []
    )
    return Meta(1, BOOT, info, [])


def test_a_description_of_a_newer_version_is_refused_in_words() -> None:
    at, data = pack_meta(meta("x"), 2, 1 << 16)
    assert at == 0
    changed = bytearray(data)
    changed[8] = 9
    import struct
    import zlib

    size = 8 + 4 + 8 + 8 + 4
    changed[size : size + 4] = struct.pack("<I", zlib.crc32(bytes(changed[:size])))
    with pytest.raises(DataError, match="format 9"):
        parse_meta(bytes(changed).ljust(1 << 16, b"\0"))


@given(st.data())
def test_a_description_with_any_byte_changed_gives_the_one_before_or_none(
    data: st.DataObject,
) -> None:
    image = bytearray(1 << 16)
    for sequence, name in ((1, "old"), (2, "new")):
        at, packed = pack_meta(meta(name), sequence, len(image))
        image[at : at + len(packed)] = packed
    assert parse_meta(bytes(image)) == (2, meta("new"))
    _, packed = pack_meta(meta("new"), 2, len(image))
    image[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    assert parse_meta(bytes(image)) == (1, meta("old"))


@given(st.binary(max_size=9000))
def test_any_bytes_are_no_description(data: bytes) -> None:
    with pytest.raises(DataError):
        parse_meta(data)


def test_what_is_written_fits_the_room_that_was_made_for_it() -> None:
    one = meta("x" * 60)
    length = len(msgspec.json.encode(one))
    at, data = pack_meta(one, 1, spill.meta_file_bytes(length))
    assert at + len(data) <= spill.meta_file_bytes(length)
