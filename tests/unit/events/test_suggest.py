"""Close matches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perfkeep.events import suggest

NAMES = ["cpu-clock", "cpu-cycles", "context-switches", "LLC-loads", "cs"]


def test_the_closest_comes_first_and_strangers_do_not_come() -> None:
    assert suggest("cpu-clok", NAMES) == ("cpu-clock",)
    assert suggest("zebra", NAMES) == ()


def test_candidates_that_are_about_as_close_come_together() -> None:
    names = ["sched_move_numa", "sched_swap_numa", "sched_switch"]
    assert suggest("sched_mov_numa", names) == ("sched_move_numa",)
    assert len(suggest("sched_numa", ["sched_numa_a", "sched_numa_b", "sched"])) == 2


def test_case_does_not_matter() -> None:
    assert suggest("llc-load", NAMES) == ("LLC-loads",)


@given(st.text(max_size=12), st.lists(st.text(max_size=12), max_size=8))
def test_at_most_three_candidates_are_given_each_once(part: str, names: list[str]) -> None:
    found = suggest(part, names)
    assert len(found) <= 3
    assert len(set(found)) == len(found)
    assert set(found) <= set(names)
