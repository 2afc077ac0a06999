"""The functions that tracepoints call to print their fields: __print_flags and its like. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from perfkeep.records import print_values
from perfkeep.records.c_expression import Parser
from perfkeep.records.c_nodes import Expr, Row, Unparsed, made
from perfkeep.records.c_values import INT, LONG, UNSIGNED, UNSIGNED_LONG, Type, Unknown, wrap

#: So many different values of a field are remembered with their names.
_REMEMBERED = 4096
_SECOND = 10**9


def _names(parser: Parser) -> list[tuple[int, str]]:
    """{ number, "name" }, …; without those whose number only the kernel knows."""
    found = []
    while parser.accept(","):
        parser.expect("{")
        if parser.accept("}"):
            continue
        one = parser.number()
        parser.expect(",")
        name = parser.expression()
        parser.expect("}")
        if one.constant is not None and name.form == "text":
            found.append((one.constant & (2**64 - 1), str(name.get(()))))
    return found


def _remembered(of: Expr, called: Callable[[int], str]) -> Expr:
    """Text for a number, made once for each."""
    get, known = of.get, dict[int, str]()

    def text(row: Row) -> str:
        value = get(row)
        if value not in known:
            if len(known) >= _REMEMBERED:
                known.clear()
            known[value] = called(value)
        return known[value]

    return made("text", text, (of,), named=True)


def _flags(parser: Parser) -> Expr:
    of = parser.number()
    parser.expect(",")
    between = parser.string()
    if between is None:
        raise Unparsed
    names = _names(parser)
    return _remembered(of, lambda value: print_values.flags(value, names, between))


def _symbolic(parser: Parser) -> Expr:
    of = parser.number()
    names: dict[int, str] = {}
    for number, name in _names(parser):
        names.setdefault(number, name)

    def called(value: int) -> str:
        value &= 2**64 - 1
        return names.get(value) or f"{value:#x}"

    return _remembered(of, called)


def _data(parser: Parser) -> Expr:
    found = parser.expression()
    if found.field is None:
        raise Unparsed
    return found


def _hex(between: str, parser: Parser) -> Expr:
    of = _data(parser)
    parser.expect(",")
    count = parser.number()
    get, length, field = of.get, count.get, of.field
    assert field is not None
    return made(
        "text",
        lambda row: print_values.hex_bytes(
            print_values.raw(get(row), field)[: max(0, length(row))], between
        ),
        (of, count),
    )


def _array(parser: Parser) -> Expr:
    of = _data(parser)
    parser.expect(",")
    count = parser.number()
    parser.expect(",")
    width = parser.number()
    get, field = of.get, of.field
    assert field is not None
    return made(
        "text",
        lambda row: print_values.array(
            print_values.raw(get(row), field), count.get(row), width.get(row)
        ),
        (of, count, width),
    )


def _dynamic_array(parser: Parser) -> Expr:
    of = parser.whole(parser.field())
    parser.expect(",")
    width = parser.number()
    get, field = of.get, of.field
    assert field is not None

    def text(row: Row) -> str:
        data = print_values.raw(get(row), field)
        return print_values.array(data, len(data), width.get(row))

    return made("text", text, (of, width))


def _field(parser: Parser) -> Expr:
    """__get_str(name), __get_dynamic_array(name): the field of that name."""
    return parser.whole(parser.field())


def _length(parser: Parser) -> Expr:
    of = _field(parser)
    get, field = of.get, of.field
    assert field is not None
    text = field.form == "text"
    return made(
        "number", lambda row: len(print_values.raw(get(row), field)) + text, (of,), UNSIGNED
    )


def _mask(show: Callable[[bytes], str], parser: Parser) -> Expr:
    of = _field(parser)
    get, field = of.get, of.field
    assert field is not None
    return made("text", lambda row: show(print_values.raw(get(row), field)), (of,))


def _seconds(part: Callable[[int], int], type: Type, parser: Parser) -> Expr:
    of = parser.number()
    get = of.get
    return made("number", lambda row: part(wrap(get(row), UNSIGNED_LONG)), (of,), type)


def _expected(parser: Parser) -> Expr:
    """__builtin_expect(what, how likely)"""
    found = parser.expression()
    parser.expect(",")
    parser.number()
    return found._replace(type=LONG) if found.form == "number" else found


def _error_type(parser: Parser) -> Expr:
    """mc_event_error_type(): enum hw_event_mc_err_type."""
    words = ("Corrected", "Uncorrected", "Deferred", "Fatal")
    of = parser.number()
    return _remembered(of, lambda value: words[value] if 0 <= value < len(words) else "Info")


def _kernels_own(parser: Parser) -> Expr:
    """What depends on how the kernel was built."""

    def get(_: Row) -> int:
        raise Unknown

    of = parser.number()
    return Expr("number", get, INT, uses=of.uses)


FUNCTIONS: dict[str, Callable[[Parser], Expr]] = {
    "__print_flags": _flags,
    "__print_flags_u64": _flags,
    "__print_symbolic": _symbolic,
    "__print_symbolic_u64": _symbolic,
    "__print_hex": partial(_hex, " "),
    "__print_hex_str": partial(_hex, ""),
    "__print_array": _array,
    "__print_dynamic_array": _dynamic_array,
    "__get_str": _field,
    "__get_rel_str": _field,
    "__get_dynamic_array": _field,
    "__get_rel_dynamic_array": _field,
    "__get_dynamic_array_len": _length,
    "__get_rel_dynamic_array_len": _length,
    "__get_sockaddr": _field,
    "__get_rel_sockaddr": _field,
    "__get_bitmask": partial(_mask, print_values.bitmask),
    "__get_rel_bitmask": partial(_mask, print_values.bitmask),
    "__get_cpumask": partial(_mask, print_values.bit_list),
    "__get_rel_cpumask": partial(_mask, print_values.bit_list),
    "__print_ns_to_secs": partial(_seconds, lambda ns: ns // _SECOND, UNSIGNED_LONG),
    "__print_ns_without_secs": partial(_seconds, lambda ns: ns % _SECOND, UNSIGNED),
    "__builtin_expect": _expected,
    "mc_event_error_type": _error_type,
    "jiffies_to_msecs": _kernels_own,
    "jiffies_to_usecs": _kernels_own,
}
