"""perfkeep.keeper.shelf: holds what it is given until it is told to drop it.

Memory files stand for perf events: they are mapped and closed alike.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.keeper.shelf import Shelf

PAGE = mmap.PAGESIZE


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf()
    yield shelf
    shelf.drop(b"")
    shelf.unmap(b"")


def memfd(name: str = "event", size: int = 3 * PAGE) -> int:
    number = os.memfd_create(name)
    os.truncate(number, size)
    return number


def is_open(number: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{number}")


def mapped(name: str) -> bool:
    return f"/memfd:{name} " in Path("/proc/self/maps").read_text()


def test_an_fd_stays_until_its_key_is_dropped_and_the_mapping_until_others_have_unmapped(
    shelf: Shelf,
) -> None:
    number = memfd("kept")
    shelf.put(b"1/", b"value", number, 2 * PAGE)
    assert is_open(number)
    shelf.unmap(b"1/")
    assert mapped("kept")
    shelf.drop(b"1/")
    assert not is_open(number)
    assert len(shelf) == 0
    shelf.unmap(b"2/")
    assert mapped("kept")
    shelf.unmap(b"1/")
    assert not mapped("kept")


def test_the_mapping_is_read_only_and_has_the_control_page_in_front(shelf: Shelf) -> None:
    shelf.put(b"1/", b"", memfd(), 2 * PAGE)
    ((_, slot),) = shelf.items()
    assert slot.mapping is not None
    assert len(slot.mapping) == 3 * PAGE
    with pytest.raises(TypeError):
        slot.mapping[0] = 1


def test_without_a_ring_nothing_is_mapped(shelf: Shelf) -> None:
    shelf.put(b"1/", b"", memfd("unmapped"))
    assert not mapped("unmapped")


def test_a_value_can_be_replaced_without_touching_the_fd(shelf: Shelf) -> None:
    number = memfd()
    shelf.put(b"1/", b"old", number, PAGE)
    shelf.put(b"1/", b"new")
    ((key, slot),) = shelf.items()
    assert (key, slot.value, slot.fd, slot.ring_bytes) == (b"1/", b"new", number, PAGE)


def test_a_second_fd_for_a_key_is_refused_and_closed(shelf: Shelf) -> None:
    first, second = memfd("first"), memfd("second")
    shelf.put(b"1/", b"value", first)
    with pytest.raises(OSError) as caught:
        shelf.put(b"1/", b"other", second)
    assert caught.value.errno == errno.EEXIST
    assert is_open(first)
    assert not is_open(second)


def test_a_mapping_that_fails_leaves_no_key_and_no_fd(shelf: Shelf) -> None:
    number = os.open("/dev", os.O_RDONLY)
    with pytest.raises(OSError) as caught:
        shelf.put(b"1/", b"", number, PAGE)
    assert caught.value.errno == errno.ENODEV
    assert len(shelf) == 0
    assert not is_open(number)


KEYS = st.lists(
    st.lists(st.sampled_from([b"1", b"11", b"2", b"e", b"k"]), min_size=1, max_size=3).map(
        lambda parts: b"/".join(parts) + b"/"
    ),
    unique=True,
)


@given(KEYS, st.sampled_from([b"", b"1/", b"11/", b"1/e/", b"2/k/1/", b"none"]))
def test_dropping_takes_exactly_what_begins_with_the_prefix(
    keys: list[bytes], prefix: bytes
) -> None:
    shelf = Shelf()
    for key in keys:
        shelf.put(key, b"")
    shelf.drop(prefix)
    assert [key for key, _ in shelf.items()] == [k for k in keys if not k.startswith(prefix)]


def test_what_is_only_about_the_instance_is_not_worth_keeping() -> None:
    shelf, found = Shelf(), []
    for key in (b"#ids", b"1/"):
        shelf.put(key, b"")
        found.append(shelf.is_worth_keeping)
    shelf.drop(b"1/")
    assert [*found, shelf.is_worth_keeping] == [False, True, False]
