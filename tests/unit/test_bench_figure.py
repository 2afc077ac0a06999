"""Figures of the benchmark: the verdict on several runs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.figure import Budget, Figure, worst

VALUES = st.lists(st.integers(0, 1000), min_size=1, max_size=5)
LIMITS = st.integers(0, 1000)


def figures(values: list[int], limit: int, least: bool) -> list[list[Figure]]:
    return [[Figure("x", value, "", None, Budget("x", value, limit, least))] for value in values]


@given(VALUES, LIMITS)
def test_one_run_above_the_limit_breaks_the_promise(values: list[int], limit: int) -> None:
    (figure,) = worst(figures(values, limit, False))
    assert figure.ours == max(values)
    assert figure.holds == all(value <= limit for value in values)


@given(VALUES, LIMITS)
def test_one_run_below_the_least_breaks_the_promise(values: list[int], limit: int) -> None:
    (figure,) = worst(figures(values, limit, True))
    assert figure.ours == min(values)
    assert figure.holds == all(value >= limit for value in values)


def test_a_figure_without_a_budget_is_of_the_run_in_the_middle() -> None:
    (figure,) = worst([[Figure("x", ours, "", None)] for ours in (3, 1, 2)])
    assert figure.ours == 2 and figure.holds is None
    assert figure.row()[-2:] == ["", ""]


def test_a_printed_row_is_whole_from_one_run() -> None:
    runs = [
        [Figure("ms", 10.0, "peer: 5×", 50.0, Budget("3× faster", 5.0, 3, least=True))],
        [Figure("ms", 20.0, "peer: 2×", 40.0, Budget("3× faster", 2.0, 3, least=True))],
        [Figure("ms", 30.0, "peer: 4×", 120.0, Budget("3× faster", 4.0, 3, least=True))],
    ]
    (figure,) = worst(runs)
    assert figure.row() == ["ms", "20", "peer: 2×", "40", "3× faster", "**does not hold**"]
    assert figure.as_json()["budget"] == "3× faster" and figure.as_json()["holds"] is False
