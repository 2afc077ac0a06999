"""perfkeep.analysis.compare and .tree: what changed, and who called what."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("numpy")

from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Attr
from perfkeep.analysis.compare import compare
from perfkeep.analysis.stacks import Frames, Key, Stacks
from perfkeep.analysis.symbolize import Function
from perfkeep.analysis.tree import tree

MAIN, WORK, WAIT = range(3)
FUNCTIONS = [Function("main", "/bin/x"), Function("work", "/bin/x"), Function("wait", "/lib/y")]


def of(*counts: tuple[str, tuple[int, ...], int]) -> Stacks:
    weights = Counter[tuple[Key, Frames]]()
    for comm, frames, weight in counts:
        weights[(comm,), frames] += weight
    return Stacks("x", Attr(), FUNCTIONS, weights, weights)


def test_what_grew_and_what_shrank_is_told_in_shares_of_all_samples() -> None:
    before = of(("a", (MAIN, WORK), 3), ("a", (MAIN, WAIT), 1))
    after = of(("a", (MAIN, WORK), 2), ("a", (MAIN, WAIT), 6))
    changes = {str(one.values["sym"]): one for one in compare(before, after, ["sym"])}
    assert {name: one.change for name, one in changes.items()} == {
        "work": -0.5, "wait": 0.5, "main": 0.0,
    }  # fmt: skip
    assert (changes["main"].total_before, changes["main"].total_after) == (1.0, 1.0)


def test_what_is_on_one_side_only_is_compared_with_nothing() -> None:
    (one, other) = compare(of(("a", (WORK,), 4)), of(("b", (WORK,), 2)), [])
    assert {one.values["comm"]: one.change, other.values["comm"]: other.change} == {
        "a": -1.0, "b": 1.0,
    }  # fmt: skip


def test_callers_stand_above_what_they_called_and_the_most_frequent_first() -> None:
    rows = tree(of(("a", (MAIN, WORK), 3), ("a", (MAIN, WAIT, WORK), 1), ("b", (MAIN,), 2)))
    assert [(row.depth, row.parent, row.name, row.own, row.total) for row in rows] == [
        (0, -1, "a", 0, 4), (1, 0, "main", 0, 4), (2, 1, "work", 3, 3), (2, 1, "wait", 0, 1),
        (3, 3, "work", 1, 1), (0, -1, "b", 0, 2), (1, 5, "main", 2, 2),
    ]  # fmt: skip


def test_what_has_too_small_a_share_is_left_out() -> None:
    rows = tree(of(("a", (MAIN, WORK), 99), ("a", (MAIN, WAIT), 1)), least=0.02)
    assert [row.name for row in rows] == ["a", "main", "work"]


def test_a_chain_of_any_length_is_a_tree() -> None:
    assert tree(of(("a", (MAIN,) * 5000, 1)))[-1].depth == 5000


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 2)).map(tuple), st.integers(1, 9))
    )
)
def test_of_a_tree_every_sample_is_taken_somewhere(
    some: list[tuple[str, tuple[int, ...], int]],
) -> None:
    found = Stacks("x", Attr(), FUNCTIONS, Counter(), Counter())
    for comm, frames, weight in some:
        found.weights[(comm,), frames] += weight
        found.samples[(comm,), frames] += 1
    rows = tree(found)
    assert sum(row.own for row in rows) == sum(found.weights.values())
    assert sum(row.samples for row in rows if row.parent < 0) == len(some)
    for at, row in enumerate(rows):
        below = sum(one.total for one in rows if one.parent == at)
        assert row.total == row.own + below
        assert row.parent < at
