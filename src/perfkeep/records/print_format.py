"""What a tracepoint's format file says of how its samples read, `print fmt:`, done. Pure, and the
text may be anything.

Where libtraceevent, and with it perf, is known to print something else than C would, this prints
what C would: signed fields keep their sign, and what only the kernel knew is "?".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from perfkeep.records import print_values
from perfkeep.records.c_expression import Parser
from perfkeep.records.c_nodes import Expr, Row, Unparsed
from perfkeep.records.c_values import INT, UNSIGNED_LONG, Type, Unknown, wrap
from perfkeep.records.print_functions import FUNCTIONS
from perfkeep.records.tracepoint import Field, fields

#: The name of a place in the kernel: (address, whether with what lies between).
Symbol = Callable[[int, bool], str]

_SPEC = re.compile(
    r"%(?:(%)|([-+ #0]*)(\*|\d{0,4})(?:(\.)(\*|\d{0,4}))?(hh|h|ll|l|L|z|Z|j|t)?"
    r"(p(?:[FSfsB]|[mM][RF]*|[iI]4[hnbl]?|[iI]6c?|[iI]S[pfsc]*|U[LlBb]?|h[CDN]?|bl?|[xK])?"
    r"|[cdiuxXos]))"
)
_BITS = {"hh": 8, "h": 16, "l": 64, "ll": 64, "L": 64, "z": 64, "Z": 64, "j": 64, "t": 64}
_WIDEST = 1024
_COMMON = "common_"


class Piece(NamedTuple):
    """One conversion: what Python's % takes, and what gives its values."""

    spec: str
    gets: tuple[Callable[[Row], Any], ...]
    expr: Expr


@dataclass(slots=True)
class Printer:
    """Prints the samples of one tracepoint.

    Attributes:
        fields: whose values a row has, in this order.
        parsed: whether the format was understood; if not, fields are printed as they are.
        names: of fields whose numbers have names: what they are called.
    """

    fields: list[Field]
    parsed: bool
    text: Callable[[Row], str]
    names: dict[str, Callable[[int], str]] = field(default_factory=dict)


def hexadecimal(address: int, _: bool) -> str:
    """A place whose name nobody knows."""
    return f"{address:#x}"


def printer(
    format: str, symbol: Symbol = hexadecimal, strings: Mapping[int, str] | None = None
) -> Printer:
    """
    Args:
        format: the text of a format file.
        strings: the kernel's constant ones, by their addresses.
    """
    known = {one.name: one for one in fields(format)}
    _, _, source = format.partition("print fmt:")
    try:
        parser = Parser(source.strip(), known, FUNCTIONS)
        pieces = list(_pieces(parser, symbol, strings or {}))
        return Printer(
            [known[one] for one in parser.used], True, _text(pieces), _names(parser, pieces)
        )
    except (Unparsed, Unknown):
        shown = [one for one in known.values() if not one.name.startswith(_COMMON)]
        return Printer(shown, False, _as_they_are(shown))


def _pieces(parser: Parser, symbol: Symbol, strings: Mapping[int, str]) -> Iterator[Piece | str]:
    """Text and conversions, in order."""
    template = parser.string()
    if template is None:
        raise Unparsed
    arguments = list[Expr]()
    while parser.accept(","):
        arguments.append(parser.expression())
    if parser.peek():
        raise Unparsed
    rest, at = iter(arguments), 0
    for spec in _SPEC.finditer(template):
        between = template[at : spec.start()]
        if "%" in between:
            raise Unparsed
        at = spec.end()
        yield between + (spec[1] or "")
        if spec[1] is None:
            yield _piece(spec, rest, symbol, strings)
    if "%" in template[at:]:
        raise Unparsed
    yield template[at:]


def _next(arguments: Iterator[Expr]) -> Expr:
    found = next(arguments, None)
    if found is None:
        raise Unparsed
    return found


def _piece(
    spec: re.Match[str], arguments: Iterator[Expr], symbol: Symbol, strings: Mapping[int, str]
) -> Piece:
    _, flags, width, dot, precision, length, kind = spec.groups()
    lengths = [_next(arguments) for one in (width, precision) if one == "*"]
    if any(one.form != "number" for one in lengths):
        raise Unparsed
    expr = _next(arguments)
    bits = _BITS.get(length or "", 32)
    get: Callable[[Row], Any]
    if kind[0] == "p" and kind not in ("p", "px", "pK"):
        return Piece("%s", (_pointed(kind, expr, lengths, symbol),), expr)
    if kind in ("p", "px", "pK"):
        kind, get = "s", _pointer(expr)
    elif kind == "s":
        get = _string(expr, strings)
    elif expr.form != "number":
        raise Unparsed
    elif kind == "c":
        kind, get = "s", _character(expr.get)
    elif "#" in flags or kind == "o":
        one = f"%{flags}{_limited(width)}{dot or ''}{precision or ''}{kind}"
        if lengths:
            raise Unparsed
        kind, flags, width, dot, get = "s", "", "", None, _alternate(one, expr, bits)
    else:
        get = _number(expr, Type(bits, kind in "di"))
        kind = "d" if kind in "iu" else kind
    before = tuple(_length(one.get, bool(dot)) for one in lengths)
    behind = f".{precision}" if dot else ""
    flags = flags.replace("0", "").replace("#", "") if kind == "s" else flags
    return Piece(f"%{flags}{_limited(width)}{behind}{kind}", (*before, get), expr)


def _limited(width: str) -> str:
    return str(min(int(width), _WIDEST)) if width.isdecimal() else width


# --- conversions --------------------------------------------------------------------------------


def _length(get: Callable[[Row], int], precision: bool) -> Callable[[Row], int]:
    def length(row: Row) -> int:
        found = wrap(get(row), INT)
        return min(found, _WIDEST) if found >= 0 or not precision else _WIDEST

    return length


def _number(expr: Expr, type: Type) -> Callable[[Row], int]:
    """As printf takes it from the stack."""
    get, own = expr.get, expr.type
    fits = own.bits < type.bits if not own.signed else own.bits <= type.bits and type.signed
    if fits or own == type:
        return get
    return lambda row: wrap(get(row), type)


def _alternate(spec: str, expr: Expr, bits: int) -> Callable[[Row], str]:
    """With "#", or in octal digits, where C and Python differ."""
    get = _number(expr, Type(bits, False))
    plain = spec.replace("#", "")
    octal = spec[-1] == "o"

    def alternate(row: Row) -> str:
        value = get(row)
        if not value or "#" not in spec:
            return plain % value
        return ("0" + plain % value) if octal else spec % value

    return alternate


def _character(get: Callable[[Row], int]) -> Callable[[Row], str]:
    return lambda row: chr(get(row) & 0x7F).replace("\0", "")


def _pointer(expr: Expr) -> Callable[[Row], str]:
    """As the C library prints it."""
    get = expr.get
    if expr.form != "number":
        raise Unparsed

    def pointer(row: Row) -> str:
        value = wrap(get(row), UNSIGNED_LONG)
        return f"{value:#x}" if value else "(nil)"

    return pointer


def _string(expr: Expr, strings: Mapping[int, str]) -> Callable[[Row], str]:
    get, one = expr.get, expr.field
    if expr.form == "text":
        if one is not None:
            return get

        def text(row: Row) -> str:
            found = get(row)
            return found if isinstance(found, str) else ""

        return text
    if expr.form == "data" and one is not None:
        if one.width != 1:
            raise Unparsed
        own = one
        return lambda row: print_values.raw(get(row), own).split(b"\0")[0].decode(errors="replace")

    def address(row: Row) -> str:
        value = wrap(get(row), UNSIGNED_LONG)
        return strings.get(value) or f"{value:x}"

    return address


def _pointed(kind: str, expr: Expr, lengths: list[Expr], symbol: Symbol) -> Callable[[Row], str]:
    """What a pointer leads to: a function, or an address in a field."""
    get, one = expr.get, expr.field
    if kind[1] in "FSfsB":
        if expr.form != "number":
            raise Unparsed
        offset = kind[1] in "FSB"
        return lambda row: symbol(wrap(get(row), UNSIGNED_LONG), offset)
    if one is None:
        raise Unparsed
    own, form = one, kind[1:]
    if kind[1] in "mM":
        return lambda row: print_values.mac(print_values.raw(get(row), own), form)
    if kind[1] in "iI":
        return lambda row: print_values.address(print_values.raw(get(row), own), form)
    if kind[1] == "U":
        return lambda row: print_values.uuid(print_values.raw(get(row), own), form)
    count = lengths[0].get if lengths else None

    def some(row: Row) -> bytes:
        data = print_values.raw(get(row), own)
        if count is None:
            return data
        length = max(0, wrap(count(row), INT))
        return data[:length] if form[0] == "h" else data[: -(-length // 8)]

    if form[0] == "h":
        between = {"C": ":", "D": "-", "N": ""}.get(form[1:], " ")
        return lambda row: print_values.hex_bytes(some(row), between)
    mask = print_values.bit_list if form == "bl" else print_values.bitmask
    return lambda row: mask(some(row))


# --- whole lines --------------------------------------------------------------------------------


def _text(pieces: Sequence[Piece | str]) -> Callable[[Row], str]:
    parts = [one if isinstance(one, Piece) else one.replace("%", "%%") for one in pieces]
    template = "".join(one.spec if isinstance(one, Piece) else one for one in parts)
    gets = [get for one in pieces if isinstance(one, Piece) for get in one.gets]

    def text(row: Row) -> str:
        try:
            return template % tuple([get(row) for get in gets])
        except Unknown:
            return "".join(_one(one, row) for one in pieces)

    return text


def _one(piece: Piece | str, row: Row) -> str:
    if isinstance(piece, str):
        return piece
    try:
        return piece.spec % tuple([get(row) for get in piece.gets])
    except Unknown:
        return "?"


def _names(parser: Parser, pieces: Sequence[Piece | str]) -> dict[str, Callable[[int], str]]:
    """Fields whose numbers are called something: what is printed of one field, with nothing in
    between, is its name.
    """
    found: dict[str, Callable[[int], str]] = {}
    run: list[Piece] = []
    for one in [*pieces, "end"]:
        if one == "":
            continue
        if isinstance(one, Piece) and len(one.expr.uses) == 1 and one.expr.form == "text":
            if run and run[-1].expr.uses != one.expr.uses:
                _add_name(found, parser, run)
                run = []
            run.append(one)
            continue
        _add_name(found, parser, run)
        run = []
    return found


def _add_name(found: dict[str, Callable[[int], str]], parser: Parser, run: Sequence[Piece]) -> None:
    if not any(one.expr.named for one in run):
        return
    (name,) = run[0].expr.uses
    if parser.field(name).form != "int":
        return
    size, at, pieces = len(parser.used), parser.used[name], tuple(run)

    def called(value: int) -> str:
        row = [0] * size
        row[at] = value
        return "".join(_one(one, row) for one in pieces)

    found.setdefault(name, called)


def _as_they_are(shown: Sequence[Field]) -> Callable[[Row], str]:
    """As libtraceevent does it."""

    def text(row: Row) -> str:
        whole = ["[FAILED TO PARSE]"]
        for one, value in zip(shown, row, strict=True):
            if not isinstance(value, int | str):
                data = print_values.raw(value, one)
                value = f"ARRAY[{print_values.hex_bytes(data, ', ')}]"
            whole.append(f"{one.name}={value}")
        return " ".join(whole)

    return text
