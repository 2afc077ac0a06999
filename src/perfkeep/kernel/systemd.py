"""What a service says to systemd and is given by it: sd_notify(3), sd_listen_fds(3), the fd store.

Plain sockets and environment variables; where there is no systemd, nothing happens.
"""

from __future__ import annotations

import array
import os
import socket

from perfkeep.kernel.fd import OwnedFd

_FIRST = 3  # SD_LISTEN_FDS_START


def given() -> list[tuple[str, OwnedFd]]:
    """The fds that systemd has passed to this process, with their names; asked once."""
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return []
    count = int(os.environ.pop("LISTEN_FDS", "0"))
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    names += [""] * (count - len(names))
    found = [(name, OwnedFd(_FIRST + at)) for at, name in enumerate(names[:count])]
    for _, fd in found:
        os.set_inheritable(fd.fileno(), False)
    return found


class Notifier:
    """Speaks to the service manager, if there is one."""

    def __init__(self) -> None:
        self._path = os.environ.get("NOTIFY_SOCKET", "")

    def __bool__(self) -> bool:
        return bool(self._path)

    def ready(self, status: str) -> None:
        """The service can be used from here on, and this process is its main one: after a death
        it is another than the manager started.
        """
        self._send(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={status}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def keep(self, name: str, fd: int) -> None:
        """Have it hold a duplicate of an fd, which is given back when the service starts again.

        A perf event without a ring polls as hung up, which must not make it drop the fd.
        """
        self._send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", fd)

    def drop(self, name: str) -> None:
        """Have it let go of the fds of this name."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def _send(self, text: str, fd: int = -1) -> None:
        if not self._path:
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.sendmsg([text.encode()], rights, socket.MSG_NOSIGNAL, address)
        except OSError:
            pass  # a manager that does not listen is no reason to fail
