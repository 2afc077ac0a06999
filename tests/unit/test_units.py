"""perfkeep.units: what people type, and what they read."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perfkeep.errors import UsageError
from perfkeep.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4096", 4096),
        ("512K", 512 << 10),
        ("8M", 8 << 20),
        ("8m", 8 << 20),
        ("8MiB", 8 << 20),
        ("8MB", 8 << 20),
        (" 1 G ", 1 << 30),
        ("0.5M", 512 << 10),
        ("100B", 100),
    ],
)
def test_a_size_takes_the_units_that_people_type(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10s", 10 * 10**9),
        ("10", 10 * 10**9),
        ("250ms", 250 * 10**6),
        ("7us", 7000),
        ("7µs", 7000),
        ("3ns", 3),
        ("1.5h", 5400 * 10**9),
        ("2d", 2 * 86400 * 10**9),
        (2, 2 * 10**9),
        (0.25, 250 * 10**6),
        (0.00001, 10_000),
        (1e-9, 1),
    ],
)
def test_a_duration_takes_units_and_bare_seconds(text: str | float, expected: int) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "M", "-8M", "8Q", "8 M M", "1.2.3K", ".", "0x10", "1e3", "∞"])
def test_what_is_no_size_is_named_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(text)) + "(?s:.*)8M"):
        parse_size(text)


@pytest.mark.parametrize("value", ["", "s", "-1s", "5 parsecs", -1.0, float("nan"), float("inf")])
def test_what_is_no_duration_is_named_with_an_example(value: str | float) -> None:
    with pytest.raises(UsageError, match="250ms"):
        parse_duration(value)


@given(st.text())
def test_any_text_is_a_size_and_a_duration_or_a_usage_error(text: str) -> None:
    for parse in (parse_size, parse_duration):
        try:
            assert parse(text) >= 0
        except UsageError as error:
            assert repr(text) in str(error)


@given(st.integers(0, 1 << 50), st.sampled_from(["", "K", "M", "G", "T"]))
def test_whole_sizes_survive_being_printed(count: int, unit: str) -> None:
    size = parse_size(f"{count}{unit}")
    printed = format_size(size)
    if "." not in printed:
        assert parse_size(printed) == size
    else:
        assert abs(parse_size(printed) - size) <= size * 0.051


@given(st.integers(0, 9999 * 86400 * 10**9))
def test_durations_survive_being_printed_to_four_digits(ns: int) -> None:
    assert abs(parse_duration(format_duration(ns)) - ns) <= ns * 0.0006


@given(st.integers(0, (1 << 60)))
@example((1 << 20) - 51)
def test_a_printed_size_is_never_more_than_1023_of_a_unit(size: int) -> None:
    number = float(re.sub("[KMGT]", "", format_size(size)))
    assert number < 1024 or format_size(size).endswith("T")
