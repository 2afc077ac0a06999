"""Guests of root's instance who wish it ill: they take nothing from others, and leave nothing."""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import perfkeep
from perfkeep.broker.service import MOST_CONNECTIONS
from perfkeep.client.connection import Connection, disconnect
from perfkeep.errors import BrokerError, PerfkeepError
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.syscalls import mount, umount
from perfkeep.testing.requirements import Need, perf_events, requires, root
from perfkeep.wire import messages
from perfkeep.wire.framing import Call, encode
from perfkeep.wire.instance import current
from perfkeep.wire.messages import INTERFACE
from support.instance import Running, names
from support.nobody import NOBODY, load_perfkeep
from support.processes import fd_count
from support.waiting import Eventually

pytestmark = requires(perf_events, root)

fuse = Need("fuse", lambda: None if os.path.exists("/dev/fuse") else "there is no /dev/fuse")


@pytest.fixture
def shared(running: Running) -> Iterator[Running]:
    """root's instance, with one recording that everyone may read."""
    running.socket.parent.chmod(0o711)
    perfkeep.start("flight", ["cpu-clock"], cpus=[0], ring="64K", mode=0o604)
    yield running


class Guest:
    """A process of nobody's, which does something and then waits until it is ended."""

    def __init__(self, act: Callable[[], object]) -> None:
        disconnect()
        load_perfkeep()
        self._ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
                theirs.sendall(json.dumps(act()).encode())
                self._ours.close()
                theirs.recv(1)
            finally:
                os._exit(0)
        theirs.close()
        self._ours.settimeout(60)
        self.said = json.loads(self._ours.recv(65536))

    def end(self) -> None:
        self._ours.close()
        os.waitpid(self.pid, 0)


def knock() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(current().socket)
    return sock


_kept: list[object] = []


def test_a_guest_has_so_many_connections_and_others_are_served_all_the_same(
    shared: Running, eventually: Eventually
) -> None:
    def crowd() -> int:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
        served = 0
        for _ in range(200):
            sock = knock()
            sock.settimeout(20)
            with suppress(OSError):
                sock.sendall(encode(Call(f"{INTERFACE}.List")))
                served += bool(sock.recv(65536))
            _kept.append(sock)
        return served

    broker, _ = shared.pids()
    before = fd_count(broker)
    guest = Guest(crowd)
    assert guest.said == MOST_CONNECTIONS
    assert names() == ["flight"]
    guest.end()
    disconnect()
    eventually(lambda: fd_count(broker) <= before)


def test_a_guest_cannot_fill_the_broker_with_fds(shared: Running, eventually: Eventually) -> None:
    def flood() -> list[int]:
        with OwnedFd(os.open("/dev/null", os.O_RDONLY)) as fd:
            with Connection(current()) as connection:
                try:
                    for _ in range(100):
                        connection.stage([fd] * 250)
                    staged = 0
                except BrokerError as error:
                    staged = error.errno or -1
            # Half a message each, so that nobody may take the fds.
            sock, sent = knock(), 0
            rights = struct.pack("250i", *[fd.fileno()] * 250)
            with suppress(OSError):
                for _ in range(1000):
                    sock.sendmsg([b"{"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                    sent += 1
                    select.select([], [], [], 0.001)
            _kept.append(sock)
            return [staged, sent]

    broker, _ = shared.pids()
    before = fd_count(broker)
    guest = Guest(flood)
    staged, sent = guest.said
    assert staged == errno.EMFILE
    assert sent < 1000, "it was not cut off"
    eventually(lambda: fd_count(broker) < before + 20)
    guest.end()
    assert names() == ["flight"]


def test_a_guest_may_send_no_message_that_fills_memory(shared: Running) -> None:
    def swell() -> int:
        sock, sent = knock(), 0
        with suppress(OSError):
            for _ in range(64):
                sock.sendall(b"x" * (1 << 18))
                sent += 1
        return sent

    guest = Guest(swell)
    guest.end()
    assert guest.said < 32
    assert names() == ["flight"]


def test_a_lie_about_an_event_hurts_only_who_told_it(shared: Running) -> None:
    """attr says how to read counts, and only the liar's own counts are wrong."""
    from perfkeep.client.opening import open_events, scope, wanted

    opened = open_events(wanted(["cpu-clock"]), scope([0]))
    attr = bytearray(opened.kinds[0].attr)
    attr[32:40] = struct.pack("=Q", 0x1F)  # read_format: everything, and in groups
    lie = messages.Kind("lie", "lie", bytes(attr))
    ring = messages.Ring("backward", 4096)
    request = messages.Start("lie", ring, [lie], opened.slots, messages.Target(), True)
    from perfkeep.client.connection import call

    call("Start", request, opened.fds)
    opened.close()
    assert names() == ["flight", "lie"]
    perfkeep.Recording("lie").stat()


class Fuse:
    """A file system of one file, which answers until it is opened and then no more: it is what an
    enemy would send an fd of."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self.path = str(path)
        self.device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self.device},rootmode=100666,user_id=0,group_id=0,allow_other"
        mount("stuck", self.path, "fuse", options=options)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        opened = False
        while True:
            poll = select.poll()
            poll.register(self.device, select.POLLIN)
            poll.poll()
            try:
                request = os.read(self.device, 1 << 17)
            except OSError:
                return  # unmounted
            _, opcode, unique = struct.unpack_from("=IIQ", request)
            if opcode == 26:  # INIT
                body = struct.pack("=IIIIHHII", 7, 31, 0, 0, 12, 9, 4096, 1).ljust(64, b"\0")
            elif opcode == 3 and not opened:  # GETATTR
                times = (0,) * 3 + (0,) * 3
                attr = struct.pack(
                    "=QQQQQQIIIIIIIIII", 1, 0, 0, *times, 0o100666, 1, 0, 0, 0, 4096, 0
                )
                body = struct.pack("=QII", 1, 0, 0) + attr
            elif opcode == 14:  # OPEN
                body, opened = struct.pack("=QII", 1, 0, 0), True
            elif opened:
                continue  # FLUSH, and whoever closes waits
            else:
                os.write(self.device, struct.pack("=IiQ", 16, -errno.ENOSYS, unique))
                continue
            os.write(self.device, struct.pack("=IiQ", 16 + len(body), 0, unique) + body)

    def end(self) -> None:
        umount(self.path, force=True)
        self.thread.join(10)
        os.close(self.device)


@requires(fuse)
def test_an_fd_whose_close_never_returns_holds_up_nobody(
    shared: Running, tmp_path: Path, eventually: Eventually
) -> None:
    stuck = Fuse(tmp_path / "stuck")
    broker, _ = shared.pids()
    try:
        fd = os.open(stuck.path, os.O_RDWR)

        def send() -> int:
            with knock() as sock:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))]
                sock.sendmsg([encode(Call(f"{INTERFACE}.Stage", fds=1))], rights)
                return len(sock.recv(4096))

        def threads() -> int:
            return len(os.listdir(f"/proc/{broker}/task"))

        guest = Guest(send)
        assert guest.said
        eventually(lambda: threads() == 2)  # one of them waits for ever
        for _ in range(20):
            assert names() == ["flight"]
        assert threads() == 2
    finally:
        stuck.end()
        with suppress(OSError):
            os.close(fd)
    guest.end()
    eventually(lambda: threads() == 1)


def test_what_a_guest_may_not_do_is_a_clean_refusal(shared: Running) -> None:
    def attempt() -> list[int]:
        found = []
        for request in (
            lambda: perfkeep.start("mine", ["page-faults:u"], pid=os.getpid(), ring="4K"),
            lambda: perfkeep.Recording("flight").claim(),
            lambda: perfkeep.reopen(1, 0),
        ):
            try:
                request()
                found.append(0)
            except PerfkeepError as error:
                found.append(error.errno or -1)
        return found

    guest = Guest(attempt)
    guest.end()
    assert guest.said == [errno.EACCES] * 3
