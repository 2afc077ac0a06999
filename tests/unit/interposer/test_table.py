"""What the supervisor remembers, and what it forgets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.interposer import table
from perfkeep.interposer.table import Opened, Remembered, Reopened, Table


@given(st.lists(st.integers(0, 20)), st.integers(1, 8))
def test_what_was_used_longest_ago_is_forgotten_first(ids: list[int], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "_MOST", most)
        remembered: Remembered[int] = Remembered()
        for number, id in enumerate(ids):
            remembered[id] = number
    newest = list(dict.fromkeys(reversed(ids)))[:most]
    assert list(reversed(remembered)) == newest
    assert all(ids[number] == id for id, number in remembered.items())


def test_a_reader_is_who_reopened_an_event_and_not_who_opened_it() -> None:
    known = Table()
    assert not known.is_reader(7, process=1, fd=3)
    known.opened[7] = Opened(bytes(64), 0, process=1)
    assert not known.is_reader(7, process=1, fd=3)
    known.reopened[7] = Reopened(5, 0, 7, {(2, 4), (1, 9)})
    assert known.is_reader(7, process=2, fd=4)
    assert known.is_reader(7, process=3, fd=4), "it got the fd from somebody"
    assert known.is_reader(7, process=1, fd=9), "it opened the event and reopened it"
    assert not known.is_reader(7, process=1, fd=3)
