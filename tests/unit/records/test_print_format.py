"""perfkeep.records.print_format: what tracepoints print, and what else may stand there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.records.c_values import Type, wrap
from perfkeep.records.print_format import printer
from support.cost import cost_of

FIELDS = {
    "n": ("int n", 4, 1), "u": ("unsigned int u", 4, 0), "s": ("short s", 2, 1),
    "l": ("long l", 8, 1), "q": ("u64 q", 8, 0), "p": ("void * p", 8, 0),
    "comm": ("char comm[16]", 16, 0), "name": ("__data_loc char[] name", 4, 0),
    "mac": ("u8 mac[6]", 6, 0), "v4": ("u8 v4[4]", 4, 0), "v6": ("u8 v6[16]", 16, 0),
    "args": ("unsigned long args[3]", 24, 0), "mask": ("__data_loc cpumask_t mask", 4, 0),
    "some": ("__data_loc u32[] some", 4, 0),
}  # fmt: skip
VALUES: dict[str, Any] = {
    "n": -3, "u": 7, "s": -1, "l": -5, "q": 1 << 63, "p": 0xFFFFFFFF81000000, "comm": "sh",
    "name": "file", "mac": [1, 2, 3, 4, 5, 255], "v4": [10, 0, 0, 1],
    "v6": [0x20, 1, 0xD, 0xB8, *bytes(11), 1], "args": [1, 2, 3],
    "mask": [0b1101], "some": [16, 17],
}  # fmt: skip
_DECLARED = "".join(
    f"\tfield:{declared};\toffset:{at * 32};\tsize:{size};\tsigned:{signed};\n"
    for at, (declared, size, signed) in enumerate(FIELDS.values())
)


def said(format: str) -> str:
    """What it prints of VALUES."""
    found = printer(f"{_DECLARED}\nprint fmt: {format}")
    assert found.parsed, format
    return found.text([VALUES[one.name] for one in found.fields])


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ('"n=%d u=%u s=%d l=%ld", REC->n, REC->u, REC->s, REC->l', "n=-3 u=7 s=-1 l=-5"),
        ('"%u %x %lx %llx", REC->n, REC->n, REC->l, REC->q', f"{2**32 - 3} fffffffd "
         "fffffffffffffffb 8000000000000000"),
        ('"%03d|%-4d|%+d|%5d|%.3d", REC->u, REC->u, REC->u, REC->n, REC->u', "007|7   |+7|   -3|007"),
        ('"%#x %#x %#o %08x", REC->u, 0, 8, REC->u', "0x7 0 010 00000007"),
        ('"%s %10s|%-10s|%.2s|%.*s", REC->comm, REC->comm, REC->comm, __get_str(name), 3, '
         "__get_str(name)", "sh         sh|sh        |fi|fil"),
        ('"100%% %s\\t\\"%c\\"", REC->n < 0 ? "minus" : "plus", \'x\'', '100% minus\t"x"'),
        ('"%d %d", REC->u > 3U && REC->n < 0, REC->l > 3UL', "1 1"),
        ('"%d %d %d", 7 / -2, 7 % -2, 1 << 3 | 1', "-3 1 9"),
        ('"%d", ((unsigned int) ((REC->q) >> 60))', "8"),
        ('"%d %lu", (u8)REC->n, sizeof(u64) * 2', "253 16"),
        ('"%p %p", REC->p, NULL', "0xffffffff81000000 (nil)"),
        ('"%pS", (void *)REC->p', "0xffffffff81000000"),
        ('"%s", __print_symbolic(REC->u, { 1, "one" }, { 3 + 4, "sev" "en" })', "seven"),
        ('"%s", __print_symbolic(REC->n, { 1, "one" })', "0xfffffffffffffffd"),
        ('"%s", __print_flags(REC->u, "|", { 1, "A" }, { (1 << 1), "B" })', "A|B|0x4"),
        ('"%s", __print_flags(REC->u & (1 | 2), "|", { 1, "A" }, { 2, "B" })', "A|B"),
        ('"%s", __print_flags(REC->q, "|", { (1ULL << 63), "TOP" })', "TOP"),
        ('"%pM %pI4 %pI6c", REC->mac, REC->v4, REC->v6', "01:02:03:04:05:ff 10.0.0.1 2001:db8::1"),
        ('"%s %s", __print_hex(REC->mac, 3), __print_hex_str(REC->mac, 2)', "01 02 03 0102"),
        ('"%s %d", __print_array(__get_dynamic_array(some), __get_dynamic_array_len(some) / 4, 4), '
         "REC->args[2]", "{0x10,0x11} 3"),
        ('"%s", __get_cpumask(mask)', "0,2-3"),
        ('"%*pbl", 8, __get_dynamic_array(mask)', "0,2-3"),
        ('"%llu.%u", __print_ns_to_secs(5000000007), __print_ns_without_secs(5000000007)', "5.7"),
        ('"%d", ({ int a = (REC->n); int b = (9); ((a) < (b) ? (a) : (b)); })', "-3"),
        ('"%d %d", REC->u / 0, REC->u', "? 7"),
        ('"%lu %d", jiffies - REC->q, REC->u', "? 7"),
        ('"%d", 1 << (REC->u + 1000)', str(1 << (1007 % 32))),
        ('"%d", REC->args[1000]', "?"),
    ],
)  # fmt: skip
def test_a_format_prints_what_c_would(format: str, expected: str) -> None:
    assert said(format) == expected


def test_the_kernels_names_and_strings_are_asked_for() -> None:
    format = f'{_DECLARED}\nprint fmt: "%ps %pS %s", REC->p, REC->p, REC->p'
    found = printer(format, lambda at, offset: f"f+{at & 0xFF:x}" if offset else "f", {1: "text"})
    assert found.text([1]) == "f f+1 text"


def test_a_number_with_names_is_called_as_it_is_printed() -> None:
    found = printer(
        f'{_DECLARED}\nprint fmt: "%d state=%s%s %s", REC->n, (REC->u & 7) ? '
        '__print_flags(REC->u & 7, "|", { 1, "S" }, { 2, "D" }) : "R", REC->u & 8 ? "+" : "", '
        'REC->n ? "yes" : "no"'
    )
    assert list(found.names) == ["u"]
    assert [found.names["u"](one) for one in (0, 1, 3, 8, 9)] == ["R", "S", "S|D", "R+", "S+"]


@pytest.mark.parametrize(
    "format",
    ['"%d"', '"%d", what(REC->n)', '"%d", REC->missing', '"%d", REC->n +', "REC->n", '"%n", REC->n',
     '"%s', '"%d", ({ static int x[] = { 1 }; x[0]; })', '"%d", ' + "(" * 500 + "1" + ")" * 500,
     '"%d", ' + "-" * 50_000 + "1", '"%d", REC->n' + " + REC->n" * 50_000, ""],
)  # fmt: skip
def test_what_is_not_understood_is_printed_as_its_fields(format: str) -> None:
    found = printer(f"{_DECLARED}\nprint fmt: {format}")
    assert not found.parsed
    text = found.text([VALUES[one.name] for one in found.fields])
    assert text.startswith("[FAILED TO PARSE] n=-3 u=7 s=-1")
    assert "mac=ARRAY[01, 02, 03, 04, 05, ff]" in text


@pytest.mark.parametrize(
    "format",
    ['"%999999999d", REC->n', '"%*d", 999999999, REC->n', '"' + "%d" * 10_000 + '"',
     '"%d", 1' + " + 1" * 30_000, '"' * 100_000, '"%s", ' + "__print_flags(" * 20_000,
     '"%.*s", -5, REC->comm', '"%s", __print_array(REC->mac, 2147483647, 1)',
     '"%s", __print_hex(REC->mac, -1)'],
)  # fmt: skip
def test_a_hostile_format_costs_neither_time_nor_memory(format: str) -> None:
    source = f"{_DECLARED}\nprint fmt: {format}"

    def print_once() -> None:
        found = printer(source)
        assert len(found.text([VALUES[one.name] for one in found.fields])) < 10_000

    cost = cost_of(print_once)
    assert cost.calls < 1000 + 30 * len(source)
    assert cost.peak_bytes < (1 << 20) + 200 * len(source)


_ATOMS = st.sampled_from(
    ["REC->n", "REC->u", "REC->s", "REC->l", "REC->q", "REC->p", "REC->args[1]", "0", "1", "-1",
     "0x7fffffff", "4294967295U", "18446744073709551615ULL", "jiffies", "'a'"]
)  # fmt: skip
_OPERATORS = st.sampled_from(
    ["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>", "==", "!=", "<", ">", "<=", ">=", "&&", "||"]
)  # fmt: skip
_EXPRESSIONS = st.recursive(
    _ATOMS,
    lambda inner: (
        st.tuples(inner, _OPERATORS, inner).map(lambda of: f"({of[0]} {of[1]} {of[2]})")
        | st.tuples(inner, inner, inner).map(lambda of: f"({of[0]} ? {of[1]} : {of[2]})")
        | st.tuples(st.sampled_from(["-", "~", "!", "(u8)", "(int)", "(long)"]), inner).map("".join)
    ),
    max_leaves=12,
)


@given(_EXPRESSIONS, st.lists(st.integers(-(2**63), 2**64 - 1), min_size=7, max_size=7))
def test_any_expression_of_any_values_gives_a_number_that_fits(
    expression: str, numbers: list[int]
) -> None:
    found = printer(f'{_DECLARED}\nprint fmt: "%llu", {expression}')
    assert found.parsed
    row: list[Any] = []
    for field, one in zip(found.fields, numbers, strict=False):
        fitting = wrap(one, Type(8 * field.width, field.signed))
        row.append([fitting] * 3 if field.form == "ints" else fitting)
    text = found.text(row)
    assert text == "?" or 0 <= int(text) < 2**64


@given(st.text(max_size=300) | st.text("\"%ds,(){}[]?:REC->n_1&|<>=!~+-*/ \\'", max_size=300))
def test_any_text_gives_a_printer(text: str) -> None:
    found = printer(f"{_DECLARED}\nprint fmt: {text}")
    row = [VALUES[one.name] for one in found.fields]
    assert isinstance(found.text(row), str) and found.text(row) == found.text(row)
