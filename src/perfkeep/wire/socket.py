"""A Unix stream socket with fds and the peer's credentials; the I/O beside `framing`.

Sends and receives on one socket; knows nothing of methods, and never blocks on its own.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from collections import deque

from perfkeep.kernel.fd import ForeignFd, OwnedFd
from perfkeep.wire.framing import MAX_FDS, MAX_MESSAGE, Splitter

# Below malloc's threshold for a mapping of its own, which each receive would make and undo.
_CHUNK = 1 << 16
_CONTROL = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
# As plain numbers: the enum's own operators cost more than the system call.
_RECEIVE, _SEND = int(socket.MSG_CMSG_CLOEXEC), int(socket.MSG_NOSIGNAL)
_CUT_OFF = int(socket.MSG_CTRUNC)
_FD_BYTES = array.array("i").itemsize


#: Fds of messages that have not arrived wholly, or not been looked at.
_MOST_WAITING = 4 * MAX_FDS

# <asm-generic/socket.h>, the same on every machine that has perf; Linux 4.13.
_SO_PEERGROUPS = 59
_MOST_GROUPS = 65536  # NGROUPS_MAX


class Peer:
    """Who is at the other end, by the kernel's word (SO_PEERCRED, SO_PEERGROUPS), as it was when
    they connected."""

    __slots__ = ("gid", "groups", "pid", "uid")

    def __init__(self, pid: int, uid: int, gid: int, groups: frozenset[int] = frozenset()) -> None:
        self.pid, self.uid, self.gid = pid, uid, gid
        #: Supplementary ones, and `gid`.
        self.groups = groups | {gid}


def peer_of(sock: socket.socket) -> Peer:
    pid, uid, gid = struct.unpack(
        "=iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    )
    return Peer(pid, uid, gid, frozenset(_groups_of(sock)))


def _groups_of(sock: socket.socket) -> array.array[int]:
    for most in (256, _MOST_GROUPS):  # the first is enough for nearly everyone
        try:
            return array.array("I", sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, most * 4))
        except OSError as error:
            if error.errno != errno.ERANGE:
                break
    return array.array("I")


def _check(number: int) -> None:
    """A perf event, or a file that has a path. Anything else, like a socket or an io_uring, could
    hold its sender's end of this connection open, and with it itself.

    Only the link is looked at: a file system of an enemy's is asked for nothing.
    """
    what = os.readlink(f"/proc/self/fd/{number}")
    if what != "anon_inode:[perf_event]" and not what.startswith("/"):
        raise OSError(errno.EINVAL, f"this fd is no perf event but {what}")


class Channel:
    """One connection: what has arrived of it, and the fds that arrived with it."""

    __slots__ = ("_wrap", "fds", "sock", "splitter")

    def __init__(
        self, sock: socket.socket, foreign: bool = False, longest: int = MAX_MESSAGE
    ) -> None:
        """
        Args:
            foreign: the fds that arrive may be anything.
            longest: bytes that a message may have.
        """
        self.sock = sock
        self.splitter = Splitter(longest)
        self.fds: deque[OwnedFd] = deque()
        self._wrap = ForeignFd if foreign else OwnedFd

    def receive(self, flags: int = 0) -> bool:
        """One recvmsg(2), with further MSG_ flags. False: the peer has closed.

        Raises:
            BlockingIOError: nothing there, on a non-blocking socket.
            OSError: EMFILE: the kernel cut fds off (our own fd limit), or too many wait; EINVAL: a
                foreign one that may not be sent.
        """
        data, ancillary, got, _ = self.sock.recvmsg(_CHUNK, _CONTROL, _RECEIVE | flags)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(payload[: len(payload) - len(payload) % _FD_BYTES])
                self.fds.extend(self._wrap(number) for number in numbers)
                if self._wrap is ForeignFd:
                    for number in numbers:
                        _check(number)
        if got & _CUT_OFF:
            raise OSError(
                errno.EMFILE, "fds were cut off on their way: the open files limit is reached"
            )
        if len(self.fds) > _MOST_WAITING:
            raise OSError(errno.EMFILE, "more fds arrived than any message takes")
        self.splitter.feed(data)
        return bool(data)

    def send(self, data: bytes | memoryview, fds: list[int]) -> int:
        """One sendmsg(2); the fds go with its first byte. Gives the bytes taken."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        return self.sock.sendmsg([data], ancillary, _SEND)

    def take_fds(self, count: int) -> list[OwnedFd]:
        """The next `count` fds of the queue.

        Raises:
            ValueError: fewer have arrived than the message says.
        """
        if count < 0 or count > len(self.fds):
            raise ValueError(f"the message says {count} fds, {len(self.fds)} arrived")
        return [self.fds.popleft() for _ in range(count)]

    def close(self) -> None:
        while self.fds:
            self.fds.popleft().close()
        self.sock.close()
