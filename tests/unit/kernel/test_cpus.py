"""perfkeep.kernel.cpus: lists of CPUs as the kernel and people write them."""

from __future__ import annotations

import errno
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.errors import UsageError
from perfkeep.kernel import cpus
from perfkeep.kernel.cpus import check_online, format_list, parse_list

NUMBERS = st.frozensets(st.integers(0, 65535), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0", (0,)),
        ("0-3,5", (0, 1, 2, 3, 5)),
        ("5,0-3,2-4", (0, 1, 2, 3, 4, 5)),
        (" 1 , 3\n", (1, 3)),
    ],
)
def test_a_list_means_what_the_kernel_means_by_it(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_list(text) == numbers


@pytest.mark.parametrize(
    "text", ["", ",", "0,", "a", "-1", "1-", "3-1", "0-70000", "1-2-3", "0x1", "9" * 5000]
)
def test_what_is_no_list_is_a_usage_error_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="0-3") as caught:
        parse_list(text)
    assert caught.value.errno == errno.EINVAL


@given(NUMBERS)
def test_a_list_survives_being_printed(numbers: frozenset[int]) -> None:
    assert parse_list(format_list(numbers)) == tuple(sorted(numbers))


@given(NUMBERS)
def test_a_printed_list_has_the_fewest_parts(numbers: frozenset[int]) -> None:
    starts = [number for number in numbers if number - 1 not in numbers]
    assert len(format_list(numbers).split(",")) == len(starts)


@given(st.one_of(st.text(), st.text("0123456789,- ")))
def test_any_text_is_a_sorted_list_or_a_usage_error(text: str) -> None:
    try:
        found = parse_list(text)
    except UsageError:
        return
    assert list(found) == sorted(set(found))
    assert found


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six possible CPUs, of which 2 and 3 are offline."""
    monkeypatch.setattr(cpus, "online", lambda: (0, 1, 4, 5))
    monkeypatch.setattr(cpus, "possible", lambda: frozenset(range(6)))


@pytest.mark.usefixtures("machine")
def test_cpus_that_are_online_are_taken_once_and_in_order() -> None:
    assert check_online([5, 0, 5]) == (0, 5)


@pytest.mark.usefixtures("machine")
def test_offline_and_absent_cpus_are_told_apart() -> None:
    words = "CPU 6,9 does not exist and CPU 2-3 is offline; CPUs 0-1,4-5 are online"
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        check_online([0, 2, 3, 6, 9])
    assert caught.value.errno == errno.ENODEV


@pytest.mark.usefixtures("machine")
def test_an_empty_list_of_cpus_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no CPU was named"):
        check_online([])
