"""One client of the broker: what it staged, what it is owed, the snapshot that it began."""

from __future__ import annotations

import os
import socket
from collections import deque

from perfkeep.broker.redacting import Redactor
from perfkeep.broker.rings import MappedRing
from perfkeep.kernel.fd import OwnedFd
from perfkeep.wire.framing import MAX_MESSAGE, Reply, encode
from perfkeep.wire.socket import Channel, peer_of

_SEND_BUFFER = 16 << 10
#: What arrives is kept until it is whole; guests may be many.
_GUEST_MESSAGE = 1 << 20


class Connection:
    """A non-blocking channel with a queue of replies."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self.peer = peer_of(sock)
        #: Somebody else than root and the owner of the instance.
        self.is_guest = self.peer.uid not in (0, os.geteuid())
        longest = _GUEST_MESSAGE if self.is_guest else MAX_MESSAGE
        self.channel = Channel(sock, foreign=True, longest=longest)
        self.staged: list[OwnedFd] = []
        self.rings: list[MappedRing] = []
        #: Takes the kernel's addresses out of their copies, for who may not see them.
        self.redactor: Redactor | None = None
        #: A thread works for this client; its next request waits.
        self.busy = False
        #: What the selector watches it for now.
        self.watched = 0
        #: The id of the recording that an opener of ours works for; 0 for everybody else.
        self.opens_for = 0
        #: The reason why its latest refused request was refused; "": none was.
        self.refusal = ""
        self._out: deque[tuple[memoryview, list[OwnedFd]]] = deque()

    def expect_copies(self) -> None:
        """From here on replies carry copies of rings, so let no more than a few lie unread. The
        kernel makes it as small as it can be.
        """
        self.channel.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)

    def fileno(self) -> int:
        return self.channel.sock.fileno()

    @property
    def sending(self) -> bool:
        return bool(self._out)

    def queue(self, reply: Reply, fds: list[OwnedFd]) -> None:
        """Owe the client a reply; `fds` stay open at least until it is sent."""
        reply.fds = len(fds)
        self._out.append((memoryview(encode(reply)), fds))

    def flush(self) -> None:
        """Send what the socket takes now.

        Raises:
            OSError: the client is gone.
        """
        while self._out:
            data, fds = self._out[0]
            try:
                done = self.channel.send(data, [fd.fileno() for fd in fds])
            except BlockingIOError:
                return
            if done == len(data):
                self._out.popleft()
            else:
                self._out[0] = (data[done:], [])

    def close(self) -> None:
        self._out.clear()
        for fd in self.staged:
            fd.close()
        self.staged.clear()
        self.rings.clear()
        if self.redactor is not None:
            self.redactor.close()
        self.channel.close()
