"""Writes the protobuf wire format: the little of it that exports need, without a runtime of it."""

from __future__ import annotations

from collections.abc import Iterable

_MASK = (1 << 64) - 1


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; a negative number has all of its 64 bits."""
    value &= _MASK
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """int32, int64, uint32, uint64, bool and enum."""
    return varint(field << 3) + varint(value)


def piece(field: int, value: bytes) -> bytes:
    """A message or bytes."""
    return varint(field << 3 | 2) + varint(len(value)) + value


def text(field: int, value: str) -> bytes:
    return piece(field, value.encode(errors="replace"))


def packed(field: int, values: Iterable[int]) -> bytes:
    """Repeated numbers."""
    return piece(field, b"".join(map(varint, values)))
