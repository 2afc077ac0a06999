"""Where one event ends and the next begins."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.errors import SpecError
from perfkeep.events.typed import Member, Typed, members


def cut(text: str) -> list[Typed]:
    return [member.typed for member in members(text)]


def test_commas_separate_events_and_spaces_do_not_matter() -> None:
    assert cut("a, b:u ,c") == [Typed("a"), Typed("b:u"), Typed("c")]


def test_terms_and_the_modifiers_behind_them_belong_to_their_event() -> None:
    assert cut("cpu/event=1,umask=2/u,b") == [Typed("cpu", "event=1,umask=2", "u"), Typed("b")]
    assert cut("msr//") == [Typed("msr", "")]
    assert cut("msr/tsc/:k") == [Typed("msr", "tsc", "k")]


def test_a_quoted_name_may_hold_commas_and_slashes() -> None:
    assert cut("a/name='x,y/z'/,b") == [Typed("a", "name='x,y/z'"), Typed("b")]


def test_the_events_of_a_group_share_its_number_and_its_modifiers() -> None:
    assert members("a,{b,c/t=1/}:u") == [
        Member(Typed("a")),
        Member(Typed("b"), 1, "u", True),
        Member(Typed("c", "t=1"), 1, "u", False),
    ]


def test_two_groups_have_two_numbers_and_may_have_names() -> None:
    assert [member.group for member in members("{a,b},ipc{c,d},e")] == [0, 0, 1, 1, None]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("uprobe:/bin/x:main", Typed("uprobe:/bin/x:main")),
        ("uprobe:/bin/x:main:u", Typed("uprobe:/bin/x:main", None, "u")),
        ("uprobe:/bin/x:main+0x4/period=3/u", Typed("uprobe:/bin/x:main+0x4", "period=3", "u")),
        ("uretprobe:/a:b/c/x:main", Typed("uretprobe:/a:b/c/x:main")),
        ("uprobe:/bin/{x}:0x40", Typed("uprobe:/bin/{x}:0x40")),
        ("kprobe:do_exit:k", Typed("kprobe:do_exit", None, "k")),
        ("mem:0x10", Typed("mem:0x10")),
        ("mem:0x10/8", Typed("mem:0x10/8")),
        ("mem:0x10/8:rw:u", Typed("mem:0x10/8:rw", None, "u")),
        ("mem:0x10:u", Typed("mem:0x10", None, "u")),
        ("mem:16/period=2/k", Typed("mem:16", "period=2", "k")),
        ("mem:16/4:x/period=2/", Typed("mem:16/4:x", "period=2", "")),
    ],
)
def test_slashes_and_colons_of_probes_and_breakpoints_are_their_own(
    text: str, parts: Typed
) -> None:
    assert cut(text) == [parts]
    assert cut(f"a,{{{text},b}}") == [Typed("a"), parts, Typed("b")]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", ""),
        ("a,,b", "a,,b"),
        ("a,", "a,"),
        ("{a,b", "{a,b"),
        ("a}", "}"),
        ("{a,{b}}", "{b}}"),
        ("{a}b", "{a}b"),
        ("a/freq=1", "a/freq=1"),
        ("b,a/freq=1/u/", "a/freq=1/u/"),
    ],
)
def test_what_does_not_match_is_named(text: str, part: str) -> None:
    with pytest.raises(SpecError) as caught:
        members(text)
    assert caught.value.part == part
    assert repr(part) in str(caught.value)


words = st.from_regex(r"[a-z][a-z0-9_]{0,6}(-[a-z]{1,4})?", fullmatch=True)
events = st.builds(
    Typed,
    words,
    st.none() | st.lists(words, max_size=3).map(",".join),
    st.text("ukhGHp", max_size=3),
).map(lambda one: one if one.terms is not None else Typed(str(one)))


@given(st.lists(events, min_size=1, max_size=5), st.booleans())
def test_events_are_found_again_in_the_text_that_spells_them(
    wanted: list[Typed], grouped: bool
) -> None:
    text = ",".join(map(str, wanted))
    assert cut(f"{{{text}}}" if grouped else text) == wanted


@given(st.text(st.sampled_from("ab:/,{}' =+memuprobe0x1"), max_size=40))
def test_any_text_is_cut_or_refused_with_the_part_that_is_wrong(text: str) -> None:
    try:
        found = members(text)
    except SpecError as error:
        assert error.part in text
    else:
        assert found
        assert all(re.search(r"\S", member.typed.head) for member in found)
