"""perfkeep.wire.packets: what broker and keeper say to each other."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.wire import packets
from perfkeep.wire.packets import Request, decode, decode_answer, encode, encode_answer

REQUESTS = st.builds(
    Request,
    st.sampled_from([packets.PUT, packets.DROP, packets.LIST, packets.BYE, packets.UNMAP]),
    st.binary(max_size=300),
    st.binary(max_size=300),
    st.integers(0, (1 << 64) - 1),
)


@given(REQUESTS)
def test_a_request_survives_the_wire(request_: Request) -> None:
    packet = encode(request_)
    assert decode(packet) == request_
    assert decode_answer(packet) is None


@given(st.integers(0, 4095))
def test_an_answer_is_never_taken_for_an_item(number: int) -> None:
    assert decode_answer(encode_answer(number)) == number


@given(st.binary(max_size=100))
def test_any_bytes_are_a_request_or_a_value_error(data: bytes) -> None:
    try:
        request = decode(data)
    except ValueError:
        return
    assert encode(request) == data


@given(REQUESTS, st.data())
def test_a_request_that_is_cut_in_its_key_is_refused(
    request_: Request, data: st.DataObject
) -> None:
    packet = encode(request_)
    whole = len(packet) - len(request_.value)
    cut = data.draw(st.integers(0, whole - 1))
    with pytest.raises(ValueError):
        decode(packet[:cut])


@pytest.fixture
def link() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = packets.link_pair()
    with ours, theirs:
        yield ours, theirs


def test_a_fd_rides_along_and_is_closed_on_exec(link: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = link
    number = os.memfd_create("rider")
    try:
        packets.send(ours, b"with", number)
        packets.send(ours, b"without")
        data, fd = packets.receive(theirs)
        assert data == b"with"
        assert not os.get_inheritable(fd)
        assert os.path.sameopenfile(fd, number)
        os.close(fd)
        assert packets.receive(theirs) == (b"without", -1)
    finally:
        os.close(number)


def test_an_end_that_is_gone_reads_as_an_empty_packet(
    link: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = link
    ours.close()
    assert packets.receive(theirs) == (b"", -1)
    with pytest.raises(BrokenPipeError):
        packets.send(theirs, b"anyone?")


def test_the_longest_packet_arrives_whole(link: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = link
    packets.send(ours, b"x" * packets.MAX_PACKET)
    assert packets.receive(theirs) == (b"x" * packets.MAX_PACKET, -1)


def test_a_packet_that_would_be_cut_on_its_way_is_refused(
    link: tuple[socket.socket, socket.socket],
) -> None:
    with pytest.raises(OSError, match=str(packets.MAX_PACKET)) as caught:
        packets.send(link[0], b"x" * (packets.MAX_PACKET + 1))
    assert caught.value.errno == errno.EMSGSIZE
