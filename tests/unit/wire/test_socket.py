"""perfkeep.wire.socket: fds and messages arrive together, and nothing stays open."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from perfkeep.kernel.fd import OwnedFd
from perfkeep.wire.framing import MAX_FDS, Call, encode
from perfkeep.wire.socket import Channel, peer_of


@pytest.fixture
def channels() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = (Channel(sock) for sock in socket.socketpair(socket.AF_UNIX))
    yield ours, theirs
    ours.close()
    theirs.close()


def memfds(count: int) -> list[OwnedFd]:
    return [OwnedFd(os.memfd_create(f"fd {number}")) for number in range(count)]


def send(channel: Channel, call: Call, fds: list[OwnedFd]) -> None:
    data = encode(call)
    assert channel.send(data, [fd.fileno() for fd in fds]) == len(data)


def test_the_most_fds_that_the_kernel_passes_arrive_in_order(
    channels: tuple[Channel, Channel],
) -> None:
    ours, theirs = channels
    sent = memfds(MAX_FDS)
    send(ours, Call("m", fds=MAX_FDS), sent)
    assert theirs.receive()
    arrived = theirs.take_fds(MAX_FDS)
    for mine, other in zip(sent, arrived, strict=True):
        assert os.path.sameopenfile(mine.fileno(), other.fileno())
        assert not os.get_inheritable(other.fileno())
        mine.close()
        other.close()


def test_fds_of_several_messages_are_matched_to_them(channels: tuple[Channel, Channel]) -> None:
    ours, theirs = channels
    sent = memfds(3)
    send(ours, Call("a", fds=1), sent[:1])
    send(ours, Call("b"), [])
    send(ours, Call("c", fds=2), sent[1:])
    while len(theirs.fds) < 3:
        assert theirs.receive()
    for fd, count in zip((sent[:1], [], sent[1:]), (1, 0, 2), strict=True):
        for mine, other in zip(fd, theirs.take_fds(count), strict=True):
            assert os.path.sameopenfile(mine.fileno(), other.fileno())
            other.close()
    for mine in sent:
        mine.close()


@pytest.mark.parametrize("count", [2, -1, 1 << 40])
def test_a_message_that_lies_about_its_fds_is_found_out(
    channels: tuple[Channel, Channel], count: int
) -> None:
    ours, theirs = channels
    sent = memfds(1)
    send(ours, Call("m", fds=count), sent)
    assert theirs.receive()
    with pytest.raises(ValueError, match=f"says {count} fds, 1 arrived"):
        theirs.take_fds(count)
    sent[0].close()


def test_closing_a_channel_closes_the_fds_that_nobody_took(
    channels: tuple[Channel, Channel],
) -> None:
    ours, theirs = channels
    sent = memfds(5)
    send(ours, Call("m", fds=5), sent)
    before = len(os.listdir("/proc/self/fd"))
    assert theirs.receive()
    assert len(os.listdir("/proc/self/fd")) == before + 5
    theirs.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1
    for mine in sent:
        mine.close()


def test_the_end_of_the_other_side_is_told(channels: tuple[Channel, Channel]) -> None:
    ours, theirs = channels
    ours.close()
    assert theirs.receive() is False


def test_the_peer_is_known_by_the_kernels_word(channels: tuple[Channel, Channel]) -> None:
    peer = peer_of(channels[0].sock)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
