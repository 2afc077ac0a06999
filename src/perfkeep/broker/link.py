"""The broker's end of the link to its keeper: everything held here is put there too."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from perfkeep.errors import Unreachable
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.systemd import Notifier
from perfkeep.wire import packets
from perfkeep.wire.packets import Request


class Item(NamedTuple):
    """One thing on the keeper's shelf."""

    key: bytes
    value: bytes
    ring_bytes: int
    fd: OwnedFd | None


class KeeperLink:
    """Requests to the keeper, one at a time, each answered before the next."""

    def __init__(self, link: socket.socket, pid: int = 0) -> None:
        self.socket = link
        self.pid = pid

    def pinned(self) -> int:
        """Bytes that the kernel charges the keeper for rings, beyond perf_event_mlock_kb."""
        with suppress(OSError), open(f"/proc/{self.pid}/status") as file:
            for line in file:
                if line.startswith("VmPin:"):
                    return int(line.split()[1]) << 10
        return 0

    def put(self, key: bytes, value: bytes, fd: int = -1, ring_bytes: int = 0) -> None:
        """Have the keeper hold a duplicate of `fd` and `value` under `key`.

        Raises:
            OSError: what the keeper's mmap(2) said.
            Unreachable: the keeper is gone.
        """
        self._ask(Request(packets.PUT, key, value, ring_bytes), fd)

    def drop(self, prefix: bytes) -> None:
        self._ask(Request(packets.DROP, prefix))

    def unmap(self, prefix: bytes) -> None:
        """Have the keeper unmap the dropped rings below `prefix`, which this process has unmapped."""
        self._ask(Request(packets.UNMAP, prefix))

    def lock(self, fd: int) -> None:
        """The instance has a new lock."""
        self._ask(Request(packets.LOCK), fd)

    def serves(self) -> None:
        """We serve clients: if we die now, it is not of our start."""
        self._ask(Request(packets.SERVES))

    def bye(self) -> None:
        """Everything ends: the keeper lets go of all it holds and exits."""
        self._ask(Request(packets.BYE))

    def items(self) -> Iterator[Item]:
        """All that the keeper holds, each with an fd of our own."""
        self._send(Request(packets.LIST))
        while True:
            data, fd = self._receive()
            if packets.decode_answer(data) is not None:
                return
            item = packets.decode(data)
            if fd == packets.CUT_OFF:
                raise OSError(errno.EMFILE, "the broker may not open as many files as the keeper")
            owned = OwnedFd(fd) if fd >= 0 else None
            yield Item(item.key, item.value, item.ring_bytes, owned)

    def _ask(self, request: Request, fd: int = -1) -> None:
        self._send(request, fd)
        data, _ = self._receive()
        number = packets.decode_answer(data)
        if number:
            raise OSError(number, os.strerror(number))

    def _send(self, request: Request, fd: int = -1) -> None:
        try:
            packets.send(self.socket, packets.encode(request), fd)
        except ConnectionError as error:
            raise Unreachable("the keeper is gone", hint="run the command once more") from error

    def _receive(self) -> tuple[bytes, int]:
        data, fd = packets.receive(self.socket)
        if not data:
            raise Unreachable("the keeper is gone", hint="run the command once more")
        return data, fd


class StoringLink(KeeperLink):
    """The same, with systemd's fd store as a third holder of every event: if broker and keeper die,
    rings are gone, but the events go on counting.
    """

    def __init__(self, link: socket.socket, pid: int, manager: Notifier) -> None:
        super().__init__(link, pid)
        self._manager = manager
        self._kept: set[bytes] = set()

    def put(self, key: bytes, value: bytes, fd: int = -1, ring_bytes: int = 0) -> None:
        super().put(key, value, fd, ring_bytes)
        if fd >= 0 and is_event(key):
            self._manager.keep(store_name(key), fd)
            self._kept.add(key)

    def drop(self, prefix: bytes) -> None:
        super().drop(prefix)
        for key in [key for key in self._kept if key.startswith(prefix)]:
            self._manager.drop(store_name(key))
            self._kept.discard(key)

    def items(self) -> Iterator[Item]:
        for item in super().items():
            if is_event(item.key):
                self._kept.add(item.key)
            yield item


def is_event(key: bytes) -> bool:
    """R/e/K/CPU/N/, see remembered."""
    return key.split(b"/")[1:2] == [b"e"]


def store_name(key: bytes) -> str:
    """Under which the fd store has an event: printable, and without a colon."""
    return f"pk-{key.decode()}"


def key_of(name: str) -> bytes:
    """What `store_name` was made of; nothing when it is not one of ours."""
    return name.removeprefix("pk-").encode() if name.startswith("pk-") else b""
