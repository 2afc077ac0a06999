"""perfkeep.broker.service and .methods: any bytes get an answer, and each method has a function."""

from __future__ import annotations

import errno
import json
import os
import socket
from typing import NoReturn, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.broker.methods import Methods
from perfkeep.broker.service import Service, failure, parse_call
from perfkeep.errors import BrokerError, PerfkeepError
from perfkeep.wire.framing import FAILED, Failed
from perfkeep.wire.messages import INTERFACE, METHODS, SERVICE_METHODS, Named

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CALLS = st.fixed_dictionaries(
    {"method": st.sampled_from([f"{INTERFACE}.{name}" for name in METHODS]) | st.text()},
    optional={"parameters": JSON, "fds": JSON},
)


def parse_or_refuse(data: bytes) -> None:
    try:
        name, parameters, fds = parse_call(data)
    except PerfkeepError as error:
        assert error.errno in (errno.EBADMSG, errno.ENOSYS)
        msgspec.json.encode(failure(error))
    else:
        assert isinstance(parameters, (METHODS | SERVICE_METHODS)[name][0])
        assert isinstance(fds, int)


@given(st.binary())
def test_any_bytes_are_a_call_or_are_refused_in_words(data: bytes) -> None:
    parse_or_refuse(data)


@given(CALLS)
def test_any_json_is_a_call_or_is_refused_in_words(call: object) -> None:
    parse_or_refuse(json.dumps(call).encode(errors="surrogatepass"))


@given(CALLS, st.data())
def test_a_call_with_a_byte_changed_is_a_call_or_is_refused_in_words(
    call: object, data: st.DataObject
) -> None:
    text = bytearray(json.dumps(call).encode())
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    parse_or_refuse(bytes(text))


@pytest.mark.parametrize(
    ("data", "number"),
    [
        (b'{"method":"org.perfkeep.Nope"}', errno.ENOSYS),
        (b'{"method":"org.other.List"}', errno.ENOSYS),
        (b'{"method":"org.perfkeep.Show"}', errno.EBADMSG),
        (b'{"method":"org.perfkeep.Show","parameters":{"name":"\xff"}}', errno.EBADMSG),
        (b'{"method":"\xff"}', errno.EBADMSG),
        (b"[" * 100_000, errno.EBADMSG),
        (b'{"method":"org.perfkeep.List","parameters":' + b"[" * 100_000, errno.EBADMSG),
        (b"", errno.EBADMSG),
    ],
)
def test_what_is_no_call_is_refused_with_an_errno(data: bytes, number: int) -> None:
    with pytest.raises(PerfkeepError) as caught:
        parse_call(data)
    assert caught.value.errno == number


def test_a_call_is_taken_apart_into_name_parameters_and_fds() -> None:
    data = b'{"method":"org.perfkeep.Show","parameters":{"name":"x"},"fds":3}'
    assert parse_call(data) == ("Show", Named("x"), 3)


def test_every_method_of_the_interface_has_one_function_and_none_is_over() -> None:
    functions = {name for name in vars(Methods) if name[0].isupper()}
    assert functions == METHODS.keys() | SERVICE_METHODS.keys()


@pytest.mark.parametrize(
    ("error", "number", "words"),
    [
        (BrokerError(errno.ENOENT, "there is none"), errno.ENOENT, "there is none"),
        (OSError(errno.EMFILE, "raw"), errno.EMFILE, "Too many open files"),
        (KeyError("x"), errno.EIO, "broken: KeyError"),
    ],
)
def test_every_failure_reaches_the_client_as_errno_and_words(
    error: Exception, number: int, words: str
) -> None:
    reply = failure(error)
    assert reply.error == FAILED
    failed = msgspec.json.decode(reply.parameters, type=Failed)
    assert failed.errno == number
    assert words in failed.message


def test_the_reason_why_an_opener_was_refused_comes_with_its_end() -> None:
    class Refusing:
        """Methods that refuse each request."""

        class recordings:
            @staticmethod
            def bury() -> None: ...

        def call(self, *_: object) -> NoReturn:
            raise BrokerError(errno.EINVAL, "its slots do not fit")

    left: list[tuple[int, str]] = []
    service = Service(cast(Methods, Refusing()), 60, left=lambda *end: left.append(end))
    ours, theirs = socket.socketpair()
    with theirs:
        service.employ(ours, 7)
        theirs.sendall(json.dumps({"method": f"{INTERFACE}.GetMissing"}).encode() + b"\0")
        service.step(10)
        theirs.shutdown(socket.SHUT_WR)
        service.step(10)
    service.selector.close()
    for fd in (service.wake_fd, service._wake_in, service._reserve):
        os.close(fd)
    assert left == [(7, "its slots do not fit")]
