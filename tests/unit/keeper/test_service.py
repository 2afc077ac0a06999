"""perfkeep.keeper.service: one broker asks, the keeper answers; memory files stand for events."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from perfkeep.broker.link import KeeperLink
from perfkeep.errors import Unreachable
from perfkeep.keeper.service import Keeping, in_charge, serve
from perfkeep.wire import packets
from perfkeep.wire.packets import Request


class Kept:
    """A keeper in a thread, with the ends of its link."""

    def __init__(self) -> None:
        ours, self.theirs = packets.link_pair()
        self.link = KeeperLink(ours)
        self.kept = Keeping(os.memfd_create("lock"))
        self.shelf, self.lock = self.kept.shelf, self.kept.lock
        self.went_on: bool | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        self.went_on = serve(self.theirs, self.kept)
        self.theirs.close()

    def end(self) -> None:
        self.link.socket.close()
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.shelf.drop(b"")
        os.close(self.lock)


@pytest.fixture
def kept() -> Iterator[Kept]:
    kept = Kept()
    yield kept
    kept.end()


def test_what_was_put_is_listed_with_fds_of_the_askers_own(kept: Kept) -> None:
    number = os.memfd_create("event")
    kept.link.put(b"1/", b"meta")
    kept.link.put(b"1/e/", b"event", number)
    meta, event = kept.link.items()
    assert (meta.key, meta.value, meta.fd) == (b"1/", b"meta", None)
    assert (event.key, event.value) == (b"1/e/", b"event")
    assert event.fd is not None
    assert event.fd.fileno() != number
    assert os.path.sameopenfile(event.fd.fileno(), number)
    event.fd.close()
    os.close(number)


def test_what_the_shelf_refuses_comes_back_as_its_errno(kept: Kept) -> None:
    with open("/dev/null") as file:
        kept.link.put(b"1/", b"", file.fileno())
        with pytest.raises(OSError) as caught:
            kept.link.put(b"1/", b"", file.fileno())
    assert caught.value.errno == errno.EEXIST
    kept.link.drop(b"1/")
    assert not list(kept.link.items())


@pytest.mark.parametrize("packet", [b"x", b"\xff" * 11, packets.encode(Request(99, b"key"))])
def test_a_request_that_makes_no_sense_is_refused_and_its_fd_closed(
    kept: Kept, packet: bytes
) -> None:
    fds = len(os.listdir("/proc/self/fd"))
    with open("/dev/null") as file:
        packets.send(kept.link.socket, packet, file.fileno())
        answer, _ = packets.receive(kept.link.socket)
    assert packets.decode_answer(answer) == errno.EINVAL
    assert len(os.listdir("/proc/self/fd")) == fds
    kept.link.put(b"still/", b"here")
    assert len(kept.shelf) == 1


def test_a_broker_that_goes_away_leaves_everything_on_the_shelf(kept: Kept) -> None:
    kept.link.put(b"1/", b"meta")
    kept.link.socket.close()
    kept.thread.join(10)
    assert kept.went_on is True
    assert len(kept.shelf) == 1


def test_bye_empties_the_shelf_and_ends_the_service(kept: Kept) -> None:
    kept.link.put(b"1/", b"meta")
    kept.link.bye()
    kept.thread.join(10)
    assert kept.went_on is False
    assert len(kept.shelf) == 0


def test_a_keeper_that_is_gone_is_unreachable() -> None:
    ours, theirs = packets.link_pair()
    theirs.close()
    link = KeeperLink(ours)
    with pytest.raises(Unreachable):
        link.put(b"1/", b"")
    ours.close()


def test_a_keeper_that_dies_before_it_answers_is_unreachable() -> None:
    ours, theirs = packets.link_pair()

    def die(link: socket.socket) -> None:
        packets.receive(link)
        link.close()

    thread = threading.Thread(target=die, args=(theirs,))
    thread.start()
    with pytest.raises(Unreachable):
        KeeperLink(ours).drop(b"1/")
    thread.join(10)
    ours.close()


def test_a_new_lock_takes_the_place_of_the_old_one(kept: Kept) -> None:
    number = os.memfd_create("new lock")
    kept.link.lock(number)
    assert os.path.sameopenfile(kept.lock, number)
    os.close(number)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("broker 1\nkeeper {pid}\n", True),
        ("broker {pid}\nkeeper 1\n", False),
        ("broker 1\nkeeper {pid}0\n", False),
        ("", False),
    ],
)
def test_only_the_keeper_that_the_lock_names_is_in_charge(text: str, expected: bool) -> None:
    lock = os.memfd_create("lock")
    os.write(lock, text.format(pid=os.getpid()).encode())
    assert in_charge(lock) is expected
    os.close(lock)


def test_a_broker_that_came_to_serve_has_not_died_of_its_start(kept: Kept) -> None:
    assert not kept.kept.broker_serves
    kept.link.serves()
    assert kept.kept.broker_serves
