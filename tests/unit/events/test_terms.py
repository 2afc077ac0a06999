"""What stands between the slashes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Attr, Flag, Sample
from perfkeep.errors import SpecError
from perfkeep.events import terms
from perfkeep.events.terms import Term


def test_terms_are_keys_with_or_without_a_value() -> None:
    assert terms.parse("event=0x3c, inv ,name='a=b,c'") == [
        Term("event", "0x3c"),
        Term("inv"),
        Term("name", "a=b,c"),
    ]


@pytest.mark.parametrize("text", ["=3", ",", "a,,b", "a='b"])
def test_what_is_no_term_is_named(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        terms.parse(text)
    assert text.endswith(caught.value.part)


def test_generic_terms_set_the_fields_of_the_attr() -> None:
    text = "config=1,config1=0x2,config2=3,config3=4,period=5,max-stack=6,call-graph=fp,name=me"
    assert terms.apply(Attr(), terms.parse(text)) == (
        Attr(config=1, config1=2, config2=3, config3=4, sample_period=5, sample_max_stack=6,
             sample_type=Sample.CALLCHAIN),
        "me",
    )  # fmt: skip


def test_the_last_of_period_and_freq_counts() -> None:
    by_freq, _ = terms.apply(Attr(), terms.parse("period=7,freq=99"))
    by_period, _ = terms.apply(Attr(), terms.parse("freq=99,period=7"))
    assert by_freq == Attr(sample_period=99, flags=Flag.FREQ)
    assert by_period == Attr(sample_period=7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("freq", "freq=100"),
        ("freq=fast", "needs a number"),
        ("period=0", "at least 1"),
        ("period=0x8000000000000000", "less than 2"),
        ("config=0x10000000000000000", "64 bits"),
        ("max-stack=70000", "65535"),
        ("call-graph=dwarf", "call-graph=fp"),
        ("name=", "name=mine"),
        ("perod=3", "did you mean period"),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected(text: str, said: str) -> None:
    with pytest.raises(SpecError, match=said) as caught:
        terms.apply(Attr(), terms.parse(text))
    assert caught.value.part.startswith(text.partition("=")[0])


@given(st.integers(0, 2**64 - 1))
def test_a_number_is_the_same_in_both_ways_of_writing_it(number: int) -> None:
    assert terms.number(f"{number}", "x") == terms.number(f"{number:#x}", "x") == number


@given(st.text(max_size=30))
def test_any_text_is_a_number_of_64_bits_or_refused(text: str) -> None:
    try:
        assert 0 <= terms.number(text, "x") < 2**64
    except SpecError as error:
        assert error.part == f"x={text}"


keys = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
values = st.none() | st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="'"), min_size=1
)


@given(st.lists(st.builds(Term, keys, values), max_size=5))
def test_terms_are_found_again_in_the_text_that_spells_them(wanted: list[Term]) -> None:
    assert terms.parse(",".join(map(str, wanted))) == wanted


@given(st.text(st.sampled_from("ab=,' 1x"), max_size=20))
def test_any_text_is_terms_or_refused(text: str) -> None:
    try:
        assert all(term.key for term in terms.parse(text))
    except SpecError as error:
        assert error.part in text
