"""perfkeep.broker.sideband: what is new in a ring is read whole, and nobody can make it busy."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import DATA_HEAD_OFFSET
from perfkeep.broker.rings import MappedRing
from perfkeep.broker.sideband import Wakeups, read_new
from perfkeep.kernel.fd import OwnedFd

SIZE = 32 << 10


class Ring:
    """A backward ring in a file, written as the kernel does it."""

    def __init__(self) -> None:
        self.file = OwnedFd(os.memfd_create("ring"))
        os.truncate(self.file.fileno(), SIZE + mmap.PAGESIZE)
        self.head = 0
        self.mapped = MappedRing(0, self.file, b"key", SIZE, backward=True)

    def write(self, number: int, words: int) -> bytes:
        size = 16 + 8 * words
        record = struct.pack("=IHHQ", 3, 0, size, number) + bytes(8 * words)
        self.head -= size
        at = self.head % SIZE
        first = min(size, SIZE - at)
        os.pwrite(self.file.fileno(), record[:first], mmap.PAGESIZE + at)
        os.pwrite(self.file.fileno(), record[first:], mmap.PAGESIZE)
        head = (self.head % (1 << 64)).to_bytes(8, "little")
        os.pwrite(self.file.fileno(), head, DATA_HEAD_OFFSET)
        return record


@pytest.fixture
def ring() -> Iterator[Ring]:
    made = Ring()
    yield made
    made.file.close()
    del made.mapped


@given(st.lists(st.lists(st.integers(0, 20), max_size=20), max_size=20))
def test_every_record_is_read_once_and_in_the_order_in_which_it_came(
    written: list[list[int]],
) -> None:
    ring, last, number = Ring(), 0, 0
    for some in written:
        told = b""
        for words in some:
            number += 1
            told += ring.write(number, words)
        data, last, lost = read_new(ring.mapped, last)
        assert data == told and not lost


def test_what_was_overwritten_is_told_and_the_newest_is_there(ring: Ring) -> None:
    told = [ring.write(number, 5) for number in range(1000)]
    data, _, lost = read_new(ring.mapped, 0)
    assert lost
    assert b"".join(told).endswith(data) and data


def test_who_wakes_the_broker_all_the_time_is_not_read_all_the_time() -> None:
    class Fake:
        woke = float("-inf")

        def fds(self) -> list[OwnedFd]:
            return [read_end]

    numbers = os.pipe()
    with OwnedFd(numbers[0]) as read_end, OwnedFd(numbers[1]) as write_end:
        busy, wakeups = cast(Any, Fake()), Wakeups()
        wakeups.watch(busy)
        os.write(write_end.fileno(), b"x")
        assert wakeups.ready() == {busy}
        assert wakeups.ready() == set()
        busy.woke -= 1
        assert wakeups.ready() == {busy}
        wakeups.forget(busy)
        assert wakeups.ready() == set()
