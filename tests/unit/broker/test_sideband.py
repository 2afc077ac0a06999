"""perfkeep.broker.sideband: what is new in a ring is read whole, and nobody can make it busy."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perfkeep.abi.perf_event import DATA_HEAD_OFFSET, Attr, Sample
from perfkeep.abi.records import Record
from perfkeep.broker import sideband
from perfkeep.broker.link import Item
from perfkeep.broker.processes import in_order
from perfkeep.broker.rings import MappedRing
from perfkeep.broker.sideband import Sideband, Wakeups, read_new
from perfkeep.kernel.fd import OwnedFd
from perfkeep.wire.messages import Kind

SIZE = 32 << 10


class Ring:
    """A backward ring in a file, written as the kernel does it."""

    def __init__(self) -> None:
        self.file = OwnedFd(os.memfd_create("ring"))
        os.truncate(self.file.fileno(), SIZE + mmap.PAGESIZE)
        self.head = 0
        self.mapped = MappedRing(0, self.file, b"key", SIZE, backward=True)

    def write(self, number: int, words: int) -> bytes:
        record = struct.pack("=IHHQ", 3, 0, 16 + 8 * words, number) + bytes(8 * words)
        self.append(record)
        return record

    def append(self, record: bytes) -> None:
        size = len(record)
        self.head -= size
        at = self.head % SIZE
        first = min(size, SIZE - at)
        os.pwrite(self.file.fileno(), record[:first], mmap.PAGESIZE + at)
        os.pwrite(self.file.fileno(), record[first:], mmap.PAGESIZE)
        head = (self.head % (1 << 64)).to_bytes(8, "little")
        os.pwrite(self.file.fileno(), head, DATA_HEAD_OFFSET)

    def close(self) -> None:
        self.file.close()
        del self.mapped


@pytest.fixture
def ring() -> Iterator[Ring]:
    made = Ring()
    yield made
    made.close()


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
        found, last, lost = read_new(ring.mapped, last)
        assert in_order([found]) == told and not lost


def test_what_was_overwritten_is_told_and_the_newest_is_there(ring: Ring) -> None:
    told = [ring.write(number, 5) for number in range(1000)]
    found, _, lost = read_new(ring.mapped, 0)
    data = bytes(in_order([found]))
    assert lost
    assert b"".join(told).endswith(data) and data


class Killed(Exception):
    """The broker, by somebody."""


class Shelf:
    """A keeper, with the items that it holds; who asks it may be killed then, before it does so or
    afterwards.
    """

    def __init__(self) -> None:
        self.items: dict[bytes, Item] = {}
        #: Requests until the broker is killed; negative: it is not.
        self.kill_in = -1
        self.afterwards = False

    def put(self, key: bytes, value: bytes, fd: int = -1, ring_bytes: int = 0) -> None:
        self._maybe_kill(not self.afterwards)
        old = self.items.get(key)
        if fd >= 0:
            assert old is None
            self.items[key] = Item(key, value, ring_bytes, OwnedFd(os.dup(fd)))
        else:
            assert old is not None
            self.items[key] = old._replace(value=value)
        self._maybe_kill(self.afterwards)
        self.kill_in -= 1

    def drop(self, key: bytes) -> None:
        fd = self.items.pop(key).fd
        assert fd is not None
        fd.close()

    def give(self) -> dict[bytes, Item]:
        return {
            key: item._replace(fd=OwnedFd(os.dup(item.fd.fileno())))
            for key, item in self.items.items()
            if item.fd is not None
        }

    def _maybe_kill(self, now: bool) -> None:
        if now and self.kill_in == 0:
            raise Killed

    def close(self) -> None:
        for key in list(self.items):
            self.drop(key)


KIND = Kind("dummy:u", "dummy:u", Attr(sample_type=Sample.TID | Sample.TIME | Sample.CPU).pack())
#: What each task does.
STORY = (Record.FORK, Record.COMM, Record.MMAP2, Record.EXIT)


def of_task(step: int, tid: int, time: int) -> bytes:
    """Of those in STORY."""
    parent = struct.pack("=II", tid, 1) if STORY[step] in (Record.FORK, Record.EXIT) else b""
    body = struct.pack("=II", tid, 1 if parent else tid)
    body += struct.pack("=IIQ", tid, 1, time) if parent else b"name".ljust(16, b"\0")
    body += struct.pack("=IIQQ", tid, tid, time, 0)
    return struct.pack("=IHH", STORY[step], 0, 8 + len(body)) + body


@given(
    # Of each record: its task, on which CPU, and after how many looks at a ring it comes.
    story=st.lists(st.tuples(st.integers(2, 5), st.booleans(), st.integers(0, 3)), max_size=60),
    kills=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=4),
    most=st.integers(100, 2000),
)
# What follows from what came after the first ring had been looked at for the second time.
@example(story=[(2, False, 0), (3, False, 3), (3, False, 3), (3, True, 0)], kills=[], most=2000)
@settings(max_examples=300)
def test_who_goes_from_cpu_to_cpu_is_known_as_long_as_it_lives_and_no_longer(
    story: list[tuple[int, bool, int]], kills: list[tuple[int, bool]], most: int
) -> None:
    rings, shelf = (Ring(), Ring()), Shelf()
    keeper = cast(Any, shelf)
    told: dict[int, list[bytes]] = {}
    ended: list[bytes] = []
    to_come, to_kill = list(story), list(kills)
    looks = 0

    def go_on() -> None:
        """The kernel writes while somebody looks."""
        nonlocal looks
        while to_come and looks >= to_come[0][2]:
            tid, second, _ = to_come.pop(0)
            looks = 0
            some = told.setdefault(tid, [])
            some.append(of_task(len(some), tid, len(story) - len(to_come)))
            rings[second].append(some[-1])
            if len(some) == len(STORY):
                ended.extend(told.pop(tid))
        looks += 1

    class Busy(MappedRing):
        def head(self) -> int:
            go_on()
            return super().head()

    def successor() -> Sideband:
        one = Sideband(b"r/", KIND)
        one.recover(shelf.give())
        if to_kill:
            shelf.kill_in, shelf.afterwards = to_kill.pop()
        return one

    for cpu, ring in enumerate(rings):
        shelf.put(b"r/a/%d/7/" % cpu, b'{"cpu":%d}' % cpu, ring.file.fileno(), SIZE)
    log = b'{"kernel_ids":{},"scanned":false,"lost":false,"logged":0}'
    with OwnedFd(os.memfd_create("log")) as empty, pytest.MonkeyPatch.context() as patch:
        shelf.put(b"r/p/1/", log, empty.fileno())
        patch.setattr(sideband, "MappedRing", Busy)
        patch.setattr(sideband, "MOST_LOGGED", most)
        one = successor()
        while to_come:
            try:
                one.read(keeper)
            except Killed:
                close(one)
                one = successor()
        shelf.kill_in = -1
        one.read(keeper)
    first, second, *living = one.processes.records()
    assert b"".join([first, second]) == b"".join(ended)
    assert sorted(map(bytes, living)) == sorted(b"".join(some) for some in told.values())
    close(one)
    shelf.close()
    for ring in rings:
        ring.close()


def close(one: Sideband) -> None:
    for fd in one.fds():
        fd.close()
    log = one.close()[-1]
    assert isinstance(log, OwnedFd)
    log.close()


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
