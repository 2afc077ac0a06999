"""Integers of C: their types, and what operators make of them. Pure."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import NamedTuple


class Unknown(Exception):
    """The file does not say this value: it was the kernel's own."""


class Type(NamedTuple):
    """An integer's."""

    bits: int
    signed: bool


INT, UNSIGNED = Type(32, True), Type(32, False)
LONG, UNSIGNED_LONG = Type(64, True), Type(64, False)

#: Of the words that a type is made of; anything else is as wide as a pointer or a long.
_BITS = {
    "char": 8, "bool": 8, "_Bool": 8, "u8": 8, "s8": 8, "uint8_t": 8, "int8_t": 8,
    "short": 16, "u16": 16, "s16": 16, "uint16_t": 16, "int16_t": 16, "umode_t": 16, "be16": 16,
    "le16": 16,
    "int": 32, "unsigned": 32, "u32": 32, "s32": 32, "uint32_t": 32, "int32_t": 32, "be32": 32,
    "le32": 32, "gfp_t": 32, "dev_t": 32, "pid_t": 32, "uid_t": 32, "gid_t": 32, "kernel_rwf_t": 32,
    "fmode_t": 32, "blk_opf_t": 32, "enum": 32, "isolate_mode_t": 32,
}  # fmt: skip
_SIGNED = {
    "char", "short", "int", "long", "s8", "s16", "s32", "s64", "int8_t", "int16_t", "int32_t",
    "int64_t", "ssize_t", "loff_t", "off_t", "pid_t", "ptrdiff_t", "ktime_t", "signed",
}  # fmt: skip


def named(words: list[str], pointer: bool) -> Type:
    """What the words of a cast or of sizeof stand for."""
    if pointer:
        return UNSIGNED_LONG
    plain = [one.removeprefix("__") for one in words]
    if "long" in plain:
        return Type(64, "unsigned" not in plain)
    if "short" in plain:
        return Type(16, "unsigned" not in plain)
    bits = next((_BITS[one] for one in plain[::-1] if one in _BITS), 64)
    bits = min([bits, *(_BITS[one] for one in plain if one in ("char",))])
    return Type(bits, "unsigned" not in plain and bool(_SIGNED & set(plain)))


def wrap(value: int, to: Type) -> int:
    """What is left of a number in this type."""
    value &= (1 << to.bits) - 1
    return value - (1 << to.bits) if to.signed and value >> (to.bits - 1) else value


def promoted(one: Type) -> Type:
    return INT if one.bits < 32 else one


def common(left: Type, right: Type) -> Type:
    """Of the two sides of an operator: the usual arithmetic conversions."""
    left, right = promoted(left), promoted(right)
    if left.bits != right.bits:
        return max(left, right)
    return Type(left.bits, left.signed and right.signed)


def _divide(left: int, right: int) -> int:
    if not right:
        raise Unknown
    found = abs(left) // abs(right)
    return found if (left < 0) == (right < 0) else -found


def _remain(left: int, right: int) -> int:
    return left - _divide(left, right) * right


#: What gives a number of the type that both sides have in common.
ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": _divide, "%": _remain,
    "&": operator.and_, "|": operator.or_, "^": operator.xor,
}  # fmt: skip
#: What gives 0 or 1.
COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "<=": operator.le,
    ">=": operator.ge,
}  # fmt: skip
#: What gives a number of the left side's type. Of too far a shift the processor takes the rest.
SHIFTS: dict[str, Callable[[int, int], int]] = {"<<": operator.lshift, ">>": operator.rshift}
#: How tightly an operator binds.
BINDING = {
    "||": 1, "&&": 2, "|": 3, "^": 4, "&": 5, "==": 6, "!=": 6, "<": 7, ">": 7, "<=": 7, ">=": 7,
    "<<": 8, ">>": 8, "+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
}  # fmt: skip
