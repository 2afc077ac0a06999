"""On which line each key of a TOML text stands."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.client.toml_lines import Path, line_of, lines_of

EXAMPLE = '''\
# [not.a.table]
a = 1  # b = 2
"quo\\u0074ed" . b.'c.d' = """
x = 1
[nor.this]
\\""" y = 2
"""

[table . "with space"]
list = [ # of things
  "]", [1, 2],
  {k = 'v', l.m = [
    1979-05-27 07:32:00]},
]

[[array]]
one = \'\'\'
\'\'\'\'
[array.sub]
deep = -1e3
[[array]]
two = { }
[[array.inner]]
three = true
'''


def test_every_key_has_the_line_that_it_begins_on() -> None:
    assert lines_of(EXAMPLE) == {
        ("a",): 2,
        ("quoted",): 3,
        ("quoted", "b"): 3,
        ("quoted", "b", "c.d"): 3,
        ("table",): 9,
        ("table", "with space"): 9,
        ("table", "with space", "list"): 10,
        ("table", "with space", "list", 0): 11,
        ("table", "with space", "list", 1): 11,
        ("table", "with space", "list", 1, 0): 11,
        ("table", "with space", "list", 1, 1): 11,
        ("table", "with space", "list", 2): 12,
        ("table", "with space", "list", 2, "k"): 12,
        ("table", "with space", "list", 2, "l"): 12,
        ("table", "with space", "list", 2, "l", "m"): 12,
        ("table", "with space", "list", 2, "l", "m", 0): 13,
        ("array",): 16,
        ("array", 0): 16,
        ("array", 0, "one"): 17,
        ("array", 0, "sub"): 19,
        ("array", 0, "sub", "deep"): 20,
        ("array", 1): 21,
        ("array", 1, "two"): 22,
        ("array", 1, "inner"): 23,
        ("array", 1, "inner", 0): 23,
        ("array", 1, "inner", 0, "three"): 24,
    }
    assert set(lines_of(EXAMPLE)) == set(paths(tomllib.loads(EXAMPLE)))


def test_what_has_no_line_has_that_of_what_it_stands_in() -> None:
    lines = lines_of("\na.b = 1")
    assert line_of(lines, ("a", "b", "c", 0)) == 2
    assert line_of(lines, ("z",)) == 1


@pytest.mark.parametrize("text", ["a", "a = [1", "a = {b", "[a", "= 1", "[[a]"])
def test_what_is_no_toml_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="on line 1"):
        lines_of(text)


# --- any text -------------------------------------------------------------------------------------


def paths(value: Any, to: Path = ()) -> list[Path]:
    """All that a document holds."""
    parts: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        parts = list(value.items())
    elif isinstance(value, list):
        parts = list(enumerate(value))
    return [path for key, part in parts for path in ((*to, key), *paths(part, (*to, key)))]


BARE = st.text("ab-_1", min_size=1, max_size=3)
CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\"'\\")
QUOTED = st.text(CHARACTERS, max_size=4).flatmap(lambda t: st.sampled_from([f'"{t}"', f"'{t}'"]))
ESCAPED = st.sampled_from(['"\\""', '"\\\\"', '"\\u00e9#"', '"\\n]"'])
KEY = st.lists(BARE | QUOTED | ESCAPED, min_size=1, max_size=3).map(" . ".join)
MULTI_LINE = st.sampled_from(
    ['"""\n[a]\nb = 1\n"""', '"""\\"""\n"""', '""""x"""""', "'''\n\\'''", "''''''", "''''\n'''''"]
)
PLAIN = st.sampled_from(["1", "-0x1f", "1.5e3", "true", "inf", "1979-05-27 07:32:00", "07:32:00"])
GAP = st.sampled_from(["", " ", "\n", "\r\n", " # ]}, x = 1\n", "\n\n\t"])


def array(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    element = st.tuples(GAP, values, GAP).map("".join)
    return st.lists(element, max_size=3).map(lambda parts: f"[{','.join(parts)}]") | st.just("[1,]")


def inline_table(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(KEY, values).map(" = ".join)
    return st.lists(pair, max_size=3).map(lambda parts: f"{{{', '.join(parts)}}}")


VALUE = st.recursive(
    QUOTED | ESCAPED | MULTI_LINE | PLAIN, lambda v: array(v) | inline_table(v), max_leaves=6
)
LINE = (
    st.tuples(KEY, VALUE).map(" = ".join)
    | KEY.map("[ {} ]".format)
    | KEY.map("[[{}]]".format)
    | GAP
)
DOCUMENT = st.lists(LINE, max_size=8).map("\n".join)


@given(DOCUMENT)
def test_what_tomllib_finds_has_a_line_each_and_nothing_else_has(text: str) -> None:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # keys that come twice, most of the time
    found = lines_of(text.replace("\r\n", "\n"))
    assert set(found) == set(paths(table))
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())


@given(DOCUMENT, st.integers(0, 20))
def test_lines_before_a_text_are_added_to_each_of_its_lines(text: str, more: int) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    text = text.replace("\r\n", "\n")
    moved = lines_of("# [x]\n" * more + text)
    assert moved == {path: line + more for path, line in lines_of(text).items()}
