"""Pieces of C expressions as functions of a sample's fields, and what operators make of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from perfkeep.records import c_values
from perfkeep.records.c_values import INT, LONG, UNSIGNED, UNSIGNED_LONG, Type, Unknown, wrap
from perfkeep.records.print_values import Value
from perfkeep.records.tracepoint import Field

Row = Sequence[Value]
#: What an expression gives: a number, text, or the bytes of a field that is none of these.
Form = Literal["number", "text", "data"]

#: Operators in each other.
_MOST_NESTED = 128


class Unparsed(Exception):
    """Nothing that this understands."""


class Expr(NamedTuple):
    """What a piece of the text stands for.

    Attributes:
        get: gives its value in a sample, whose fields are in a row.
        type: of a number.
        constant: the number, where it is the same in all samples.
        field: it is the whole of this field.
        uses: names of all fields that it depends on.
        named: it is made of names for numbers.
        depth: of operators in each other.
    """

    form: Form
    get: Callable[[Row], Any]
    type: Type = INT
    constant: int | None = None
    field: Field | None = None
    uses: frozenset[str] = frozenset()
    named: bool = False
    depth: int = 0


def number(value: int, type: Type = INT) -> Expr:
    return Expr("number", lambda _: value, type, value)


def text(value: str) -> Expr:
    return Expr("text", lambda _: value)


def unknown(_: Row) -> Any:
    raise Unknown


def made(
    form: Form, get: Callable[[Row], Any], parts: Sequence[Expr], type: Type = INT,
    named: bool = False,
) -> Expr:  # fmt: skip
    """Of these parts; worked out at once where they are all constant."""
    depth = 1 + max((one.depth for one in parts), default=0)
    if depth > _MOST_NESTED:
        raise Unparsed
    if form == "number" and all(one.constant is not None for one in parts):
        try:
            return number(get(()), type)
        except Unknown:
            pass  # a division by zero: it stays what it is
    uses = frozenset[str]().union(*(one.uses for one in parts))
    named = named or any(one.named for one in parts)
    return Expr(form, get, type, uses=uses, named=named, depth=depth)


def literal(token: str) -> Expr:
    digits = token.rstrip("uUlL")
    suffix = token[len(digits) :].lower()
    octal = digits[0] == "0" and digits[1:].isdecimal()
    if len(digits) > 40 or (octal and set(digits) & {"8", "9"}):
        raise Unparsed
    value = int(digits, 8 if octal else 0)
    unsigned, wide = "u" in suffix, "l" in suffix
    fitting = [
        type
        for type in (INT, UNSIGNED, LONG, UNSIGNED_LONG)
        if not (wide and type.bits == 32) and not (unsigned and type.signed)
        if type.signed or unsigned or digits[:1] == "0"
        if value < 1 << (type.bits - type.signed)
    ]
    type = fitting[0] if fitting else UNSIGNED_LONG
    return number(wrap(value, type), type)


def _to(one: Expr, type: Type) -> Callable[[Row], int]:
    """Its value as another type; the same function where all its values fit."""
    get, own = one.get, one.type
    wider = own.bits < type.bits and (type.signed or not own.signed)
    if (
        own == type
        or wider
        or (one.constant is not None and wrap(one.constant, type) == one.constant)
    ):
        return get
    return lambda row: wrap(get(row), type)


def choice(condition: Expr, one: Expr, other: Expr) -> Expr:
    test, parts = condition.get, (condition, one, other)
    if one.form == other.form == "number":
        type = c_values.common(one.type, other.type)
        yes, no = _to(one, type), _to(other, type)
        return made("number", lambda row: yes(row) if test(row) else no(row), parts, type)
    # Beside a string, a number is no text, but a null pointer.
    form = next(part.form for part in (one, other) if part.form != "number")
    yes, no = one.get, other.get
    return made(form, lambda row: yes(row) if test(row) else no(row), parts)


def operated(token: str, left: Expr, right: Expr) -> Expr:
    one, two, parts = left.get, right.get, (left, right)
    if token == "&&":
        return made("number", lambda row: int(bool(one(row) and two(row))), parts)
    if token == "||":
        return made("number", lambda row: int(bool(one(row) or two(row))), parts)
    if left.form != "number" or right.form != "number":
        raise Unparsed
    if token in c_values.SHIFTS:
        return _shifted(token, left, right)
    type = c_values.common(left.type, right.type)
    one, two = _to(left, type), _to(right, type)
    if token in c_values.COMPARISONS:
        compare = c_values.COMPARISONS[token]
        return made("number", lambda row: int(compare(one(row), two(row))), parts)
    apply = c_values.ARITHMETIC[token]
    if token in "&|^":  # what they give is of the type again
        return made("number", lambda row: apply(one(row), two(row)), parts, type)
    return made("number", lambda row: wrap(apply(one(row), two(row)), type), parts, type)


def _shifted(token: str, left: Expr, right: Expr) -> Expr:
    type = c_values.promoted(left.type)
    shift, last = c_values.SHIFTS[token], type.bits - 1
    one, two, parts = _to(left, type), right.get, (left, right)
    if token == ">>":
        return made("number", lambda row: shift(one(row), two(row) & last), parts, type)
    return made("number", lambda row: wrap(shift(one(row), two(row) & last), type), parts, type)


def signed(token: str, one: Expr) -> Expr:
    get, type = one.get, c_values.promoted(one.type)
    if token == "!":
        return made("number", lambda row: int(not get(row)), (one,))
    if one.form != "number":
        raise Unparsed
    if token == "-":
        return made("number", lambda row: wrap(-get(row), type), (one,), type)
    if token == "~":
        return made("number", lambda row: wrap(~get(row), type), (one,), type)
    return made("number", get, (one,), type)


def cast(one: Expr, words: list[str], pointer: bool) -> Expr:
    if one.form != "number":  # a pointer to the same bytes
        if not pointer:
            raise Unparsed
        return one
    if words[0] in ("struct", "union", "void") and not pointer:
        raise Unparsed
    if words[-1] in ("bool", "_Bool") and not pointer:
        get = one.get
        return made("number", lambda row: int(bool(get(row))), (one,), c_values.named(words, False))
    return converted(one, c_values.named(words, pointer))


def converted(one: Expr, type: Type) -> Expr:
    if type == one.type:
        return one
    found = made("number", _to(one, type), (one,), type)
    return found._replace(field=one.field) if type.bits >= one.type.bits else found


def element(of: Expr, at: Expr) -> Expr:
    whole, index = of.get, at.get

    def get(row: Row) -> int:
        value, place = whole(row), index(row)
        if not isinstance(value, str | bytes | list) or not 0 <= place <= len(value):
            raise Unknown
        if place == len(value):
            if isinstance(value, str):
                return 0  # the NUL at the end
            raise Unknown
        found = value[place]
        return ord(found) if isinstance(found, str) else found

    if of.form == "number" or at.form != "number":
        raise Unparsed
    field = of.field
    type = Type(8 * field.width, field.signed) if field and field.form == "ints" else INT
    return made("number", get, (of, at), type)
