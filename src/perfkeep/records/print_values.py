"""Values of a tracepoint's fields as text, in the forms that the kernel's printk has. Pure."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from perfkeep.records.tracepoint import Field

Value = int | str | bytes | list[int]

_GUID = (3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15)
_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}
_INET, _INET6 = 2, 10


def raw(value: Value, field: Field) -> bytes:
    """A field's bytes."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode(errors="replace")
    numbers = [value] if isinstance(value, int) else value
    width = field.width if field.width in _CODES else 1
    mask = (1 << 8 * width) - 1
    return struct.pack(f"={len(numbers)}{_CODES[width]}", *(one & mask for one in numbers))


def hex_bytes(data: bytes, between: str) -> str:
    return between.join(f"{one:02x}" for one in data)


def array(data: bytes, count: int, width: int) -> str:
    """__print_array."""
    if width not in _CODES:
        return "{}"
    count = max(0, min(count, len(data) // width))
    numbers = struct.unpack_from(f"={count}{_CODES[width]}", data)
    return "{" + ",".join(f"{one:#x}" for one in numbers) + "}"


def bitmask(data: bytes) -> str:
    """__get_bitmask: hexadecimal, in groups of 32 bits, the highest first."""
    words = [data[at : at + 4][::-1].hex() for at in range(0, len(data), 4)]
    return ",".join(words[::-1])


def bit_list(data: bytes) -> str:
    """__get_cpumask, %*pbl: 0-3,5."""
    whole, found, bit = int.from_bytes(data, "little"), list[str](), 0
    while whole >> bit:
        bit += ((whole >> bit) & -(whole >> bit)).bit_length() - 1
        last, rest = bit, whole >> bit
        last += (~rest & (rest + 1)).bit_length() - 2
        found.append(str(bit) if last == bit else f"{bit}-{last}")
        bit = last + 1
    return ",".join(found)


def flags(value: int, names: Sequence[tuple[int, str]], between: str) -> str:
    """__print_flags."""
    value, found = value & (2**64 - 1), list[str]()
    for mask, name in names:
        if mask and value & mask == mask:
            found.append(name)
            value &= ~mask
    if value:
        found.append(f"{value:#x}")
    return between.join(found)


def mac(data: bytes, form: str) -> str:
    if len(data) != 6:
        return "INVALIDMAC"
    data = data[::-1] if "R" in form else data
    return hex_bytes(data, "" if form[0] == "m" else "-" if "F" in form else ":")


def uuid(data: bytes, form: str) -> str:
    if len(data) != 16:
        return "INVALIDUUID"
    text = bytes(data[at] for at in _GUID).hex() if form[1:2] in ("l", "L") else data.hex()
    text = text.upper() if form[1:2] in ("L", "B") else text
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _ip4(data: bytes, form: str) -> str:
    if len(data) != 4:
        return "INVALIDIPv4"
    data = data[::-1] if form[2:3] in ("h", "l") else data
    return ".".join(f"{one:03d}" if form[0] == "i" else str(one) for one in data)


def _ip6(data: bytes, form: str) -> str:
    if len(data) != 16:
        return "INVALIDIPv6"
    if "c" in form:
        mapped = data[:12] == bytes(10) + b"\xff\xff"
        tunnel = data[8:12] in (b"\0\0\x5e\xfe", b"\2\0\x5e\xfe")
        if not mapped and not tunnel:
            return _short(data)
        # As many words of hexadecimal as lie before the IPv4 address.
        return f"{_short(data[:12])}:{_ip4(data[12:], 'I4')}"
    text = data.hex()
    between = "" if form[0] == "i" else ":"
    return between.join(text[at : at + 4] for at in range(0, 32, 4))


def _short(data: bytes) -> str:
    """Words in hexadecimal, the longest run of zeros left out."""
    words = [f"{int.from_bytes(data[at : at + 2]):x}" for at in range(0, len(data), 2)]
    longest, begin, at = 1, -1, 0
    while at < len(words):
        end = at
        while end < len(words) and words[end] == "0":
            end += 1
        if end - at > longest:
            longest, begin = end - at, at
        at = max(end, at + 1)
    if begin < 0:
        return ":".join(words)
    return f"{':'.join(words[:begin])}::{':'.join(words[begin + longest :])}"


def address(data: bytes, form: str) -> str:
    """%pI4, %pI6c, %pISpc and their like."""
    if form[1:2] == "4":
        return _ip4(data, form)
    if form[1:2] == "6":
        return _ip6(data, form)
    family = int.from_bytes(data[:2], "little")
    port = f":{int.from_bytes(data[2:4])}" if "p" in form else ""
    if family == _INET:
        return _ip4(data[4:8], form[:1] + "4") + port
    if family == _INET6:
        text = _ip6(data[8:24], form[:1] + "6" + ("c" if "c" in form else ""))
        return f"[{text}]{port}" if port else text
    return ""
