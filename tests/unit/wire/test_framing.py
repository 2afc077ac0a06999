"""perfkeep.wire.framing: whole messages out of any stream of bytes."""

from __future__ import annotations

import errno

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.errors import PerfkeepError
from perfkeep.wire.framing import Call, Reply, Splitter, encode

MESSAGES = st.lists(st.binary(max_size=30).map(lambda data: data.replace(b"\0", b"0")), max_size=8)


def drain(splitter: Splitter) -> list[bytes]:
    found = []
    while (message := splitter.next()) is not None:
        found.append(message)
    return found


@given(MESSAGES, st.binary(max_size=10).map(lambda data: data.replace(b"\0", b"0")), st.data())
def test_however_a_stream_is_chunked_the_messages_are_the_same(
    messages: list[bytes], rest: bytes, data: st.DataObject
) -> None:
    stream = b"".join(message + b"\0" for message in messages) + rest
    splitter, found, at = Splitter(), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        splitter.feed(stream[at : at + size])
        at += size
        if data.draw(st.booleans()):
            found += drain(splitter)
    assert found + drain(splitter) == messages


def test_a_message_beyond_the_limit_is_refused_while_it_grows() -> None:
    splitter = Splitter(100)
    splitter.feed(b"x" * 100)
    assert splitter.next() is None
    with pytest.raises(PerfkeepError, match="100 bytes") as caught:
        splitter.feed(b"x")
    assert caught.value.errno == errno.EMSGSIZE


def test_many_short_messages_may_be_longer_than_the_limit_together() -> None:
    splitter = Splitter(100)
    splitter.feed(b"0123456789\0" * 50)
    assert drain(splitter) == [b"0123456789"] * 50


@given(st.text(), st.dictionaries(st.text(), st.text()), st.integers(0, 253))
def test_a_call_survives_the_wire_whatever_is_in_it(
    method: str, parameters: dict[str, str], fds: int
) -> None:
    splitter = Splitter()
    splitter.feed(encode(Call(method, msgspec.Raw(msgspec.json.encode(parameters)), fds)))
    data = splitter.next()
    assert data is not None
    assert splitter.next() is None
    call = msgspec.json.decode(data, type=Call)
    assert (call.method, call.fds) == (method, fds)
    assert msgspec.json.decode(call.parameters) == parameters


def test_a_reply_without_fds_or_error_says_nothing_of_them() -> None:
    assert encode(Reply(msgspec.Raw(b"{}"))) == b'{"parameters":{}}\0'
    assert encode(Reply(msgspec.Raw(b'{"id":1}'), fds=2)) == b'{"parameters":{"id":1},"fds":2}\0'
