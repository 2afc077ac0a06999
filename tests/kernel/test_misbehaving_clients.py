"""Clients that misbehave: garbage, lies, silence. They hurt nobody but themselves."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

import perfkeep
from perfkeep.client.connection import Connection
from perfkeep.errors import BrokerError
from perfkeep.kernel.fd import OwnedFd
from perfkeep.testing.requirements import perf_events, requires, tracefs
from perfkeep.wire import framing, messages
from perfkeep.wire.framing import FAILED, Call, Reply, encode
from perfkeep.wire.instance import current
from perfkeep.wire.messages import INTERFACE
from support.instance import Running, names
from support.processes import fd_count, files_of
from support.waiting import Eventually

pytestmark = requires(perf_events)


def knock(where: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(where))
    return sock


def everything(sock: socket.socket) -> bytes:
    """What the broker sends until it closes."""
    found = b""
    with suppress(ConnectionResetError):
        while data := sock.recv(65536):
            found += data
    return found


def reply_in(data: bytes) -> Reply:
    return msgspec.json.decode(data.rstrip(b"\0"), type=Reply)


@pytest.mark.parametrize(
    "garbage",
    [b"garbage\0", b"\0", b"\xff\xfe\0", b"{}\0", b"[" * 1000 + b"\0", b'{"method":"\xff"}\0',
     encode(Call(f"{INTERFACE}.Nope"))],
)  # fmt: skip
def test_garbage_is_answered_in_words_and_hurts_nobody_else(
    running: Running, flight: perfkeep.Recording, garbage: bytes
) -> None:
    with knock(running.socket) as sock:
        sock.sendall(garbage)
        assert reply_in(everything(sock)).error == FAILED
    assert names() == ["flight"]


def test_a_message_without_an_end_is_cut_off(running: Running, flight: perfkeep.Recording) -> None:
    before, _ = running.pids()
    chunk = b"x" * (1 << 20)
    with knock(running.socket) as sock, pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range((framing.MAX_MESSAGE >> 20) + 4):
            sock.sendall(chunk)
    assert running.pids()[0] == before


def test_a_client_that_leaves_in_the_middle_of_a_message_hurts_nobody(
    running: Running, flight: perfkeep.Recording
) -> None:
    for cut in (1, 20, 40):
        with knock(running.socket) as sock:
            sock.sendall(encode(Call(f"{INTERFACE}.List"))[:cut])
    assert names() == ["flight"]


def test_a_client_that_sends_slowly_holds_up_nobody(
    running: Running, flight: perfkeep.Recording
) -> None:
    message = encode(Call(f"{INTERFACE}.List"))
    with knock(running.socket) as sock:
        for at in range(len(message)):
            sock.sendall(message[at : at + 1])
            if at % 10 == 0:
                assert names() == ["flight"]
        assert b"flight" in sock.recv(65536)


def test_a_client_that_never_reads_holds_up_nobody(
    running: Running, flight: perfkeep.Recording
) -> None:
    with knock(running.socket) as sock:
        sock.setblocking(False)
        with suppress(BlockingIOError):
            for _ in range(10_000):
                sock.send(encode(Call(f"{INTERFACE}.List")))
        assert names() == ["flight"]


def test_fds_of_a_client_that_vanishes_are_closed(
    running: Running, flight: perfkeep.Recording, eventually: Eventually
) -> None:
    broker, _ = running.pids()
    before = fd_count(broker)
    fds = [OwnedFd(os.memfd_create("staged")) for _ in range(300)]
    with Connection(current()) as client:
        client.stage(fds)
        assert fd_count(broker) == before + 301
    for fd in fds:
        fd.close()
    eventually(lambda: fd_count(broker) == before)


def test_fds_that_no_message_speaks_of_are_closed_with_the_connection(
    running: Running, flight: perfkeep.Recording, eventually: Eventually
) -> None:
    broker, _ = running.pids()
    with tempfile.NamedTemporaryFile() as file, knock(running.socket) as sock:
        socket.send_fds(sock, [encode(Call(f"{INTERFACE}.List"))], [file.fileno()] * 5)
        assert sock.recv(65536)
        assert files_of(broker).count(file.name) == 5
        sock.close()
        eventually(lambda: file.name not in files_of(broker))


@pytest.mark.parametrize("what", ["its own socket", "a socket", "a pipe"])
def test_an_fd_that_could_hold_its_own_connection_open_is_refused(
    running: Running, flight: perfkeep.Recording, eventually: Eventually, what: str
) -> None:
    broker, _ = running.pids()
    before = fd_count(broker)
    with knock(running.socket) as sock, socket.socket() as other:
        read_end, write_end = os.pipe()
        sent = {"its own socket": sock.fileno(), "a socket": other.fileno(), "a pipe": read_end}
        socket.send_fds(sock, [encode(Call(f"{INTERFACE}.Stage", fds=1))], [sent[what]])
        reply = reply_in(everything(sock))
        os.close(read_end)
        os.close(write_end)
    failed = msgspec.json.decode(reply.parameters, type=framing.Failed)
    assert (failed.errno, reply.error) == (errno.EINVAL, FAILED)
    assert "no perf event" in failed.message
    eventually(lambda: fd_count(broker) <= before)
    assert names() == ["flight"]


@pytest.mark.parametrize("fds", [3, -1, 1 << 40])
def test_a_message_that_lies_about_its_fds_is_cut_off(
    running: Running, flight: perfkeep.Recording, fds: int
) -> None:
    with knock(running.socket) as sock:
        sock.sendall(encode(Call(f"{INTERFACE}.List", fds=fds)))
        assert everything(sock) == b""
    assert names() == ["flight"]


def test_what_is_no_perf_event_cannot_be_staged_into_a_recording(
    running: Running, flight: perfkeep.Recording
) -> None:
    kind = messages.Kind("x", "x", bytes(64))
    start = messages.Start(
        "bad",
        messages.Ring("backward", 65536),
        [kind],
        [messages.Slot(0, 0)],
        messages.Target(),
        True,
    )
    with Connection(current()) as client:
        with OwnedFd(os.memfd_create("no event")) as fd:
            client.stage([fd])
        with pytest.raises(BrokerError, match="no perf event") as caught:
            client.call("Start", start, messages.Started)
    assert caught.value.errno == errno.EINVAL
    assert names() == ["flight"]


@requires(tracefs)
@pytest.mark.usefixtures("tracefs_mounted")
def test_a_recording_that_takes_long_to_close_holds_up_nobody(
    running: Running, eventually: Eventually
) -> None:
    def events_of_the_broker() -> int:
        numbers, found = Path(f"/proc/{running.pids()[0]}/fd"), 0
        for number in numbers.iterdir():
            with suppress(FileNotFoundError):
                found += "perf_event" in os.readlink(number)
        return found

    # Each is closed for the last time, which takes the kernel some 40 ms.
    recording = perfkeep.start("many", ["syscalls:sys_enter_s*"], cpus=[0], ring="64K")
    held = events_of_the_broker()
    recording.claim()
    assert names() == []
    assert 0 < events_of_the_broker() <= held, "the answer came after all was closed"
    eventually(lambda: events_of_the_broker() == 0)
