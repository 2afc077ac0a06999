"""The letters behind an event."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Attr, Flag
from perfkeep.errors import SpecError
from perfkeep.events import modifiers

LEVELS = Flag.EXCLUDE_USER | Flag.EXCLUDE_KERNEL | Flag.EXCLUDE_HV


@pytest.mark.parametrize(
    ("letters", "flags"),
    [
        ("", Flag(0)),
        ("u", Flag.EXCLUDE_KERNEL | Flag.EXCLUDE_HV),
        ("kh", Flag.EXCLUDE_USER),
        ("ukh", Flag(0)),
        ("G", Flag.EXCLUDE_HOST),
        ("H", Flag.EXCLUDE_GUEST),
        ("GH", Flag(0)),
        ("DeI", Flag.PINNED | Flag.EXCLUSIVE | Flag.EXCLUDE_IDLE),
    ],
)
def test_letters_leave_out_what_they_do_not_name(letters: str, flags: Flag) -> None:
    for order in permutations(letters):
        assert modifiers.apply(Attr(), "".join(order)) == Attr(flags=flags)


def test_each_p_asks_for_more_exact_addresses() -> None:
    assert [modifiers.apply(Attr(), "p" * n).precise_ip for n in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("letters", "wrong"), [("uz", "z"), ("uu", "u"), ("pppp", "p"), ("S", "S")]
)
def test_a_bad_modifier_is_named_with_what_was_expected(letters: str, wrong: str) -> None:
    with pytest.raises(SpecError, match="cpu-clock") as caught:
        modifiers.join(letters, "", True, "cpu-clock")
    assert caught.value.part == wrong


def test_an_unknown_letter_gets_the_list_of_known_ones() -> None:
    with pytest.raises(SpecError, match="expected some of u k h"):
        modifiers.check("z", "cs:z")


def test_letters_of_the_group_are_added_to_an_events_own() -> None:
    assert modifiers.join("u", "kp", True, "a") == "ukp"
    assert modifiers.join("pu", "pu", True, "a") == "pup"


def test_pinned_and_exclusive_of_a_group_are_its_leaders_alone() -> None:
    assert modifiers.join("u", "De", True, "a") == "uDe"
    assert modifiers.join("u", "De", False, "a") == "u"
    with pytest.raises(SpecError, match="leader"):
        modifiers.join("D", "", False, "a")


def test_an_event_and_its_group_have_three_p_at_most() -> None:
    with pytest.raises(SpecError, match="three p"):
        modifiers.join("pp", "pp", True, "a")


@given(st.text("ukhGHIpDe", max_size=12), st.text("ukhGHIpDe", max_size=12))
def test_what_join_lets_through_can_be_joined_again(own: str, of_group: str) -> None:
    try:
        letters = modifiers.join(own, of_group, True, "a")
    except SpecError:
        return
    assert modifiers.join(letters, "", True, "a") == letters
    attr = modifiers.apply(Attr(), letters)
    assert attr.flags & LEVELS != LEVELS
