"""perfkeep.cli.table: aligned, and harmless whatever is in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perfkeep.cli.table import plain, render


@given(st.lists(st.lists(st.text(max_size=12), min_size=2, max_size=2), max_size=4))
def test_what_others_wrote_cannot_control_the_terminal(rows: list[list[str]]) -> None:
    lines = render(["A", "B"], rows).split("\n")
    assert len(lines) == 1 + len(rows)
    assert all(letter.isprintable() for line in lines for letter in line)


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert render(["A", "B"], [["long", "1"], ["x", "22"]], right=(1,)).split("\n") == [
        "A      B",
        "long   1",
        "x     22",
    ]
    assert plain("a\x1b[31mb\nc") == "a?[31mb?c"
