"""The audit log: one line for every change and every refusal, with who it was by the kernel's word.

    2026-11-23T09:00:00.123456Z pid=17 uid=1000 gid=1000 method=Claim name=flight result=ok
    2026-11-23T09:00:01.000017Z pid=18 uid=1001 gid=1001 method=Claim name=flight result=EACCES

Mode 0600, beside the socket, and of root's instance in /var/log/perfkeep. A log that cannot be written stops nothing; it is said once.
"""

from __future__ import annotations

import errno
import os
import time

from perfkeep.broker.log import say
from perfkeep.wire.socket import Peer

#: What changes nothing, or belongs to a Start, is logged only when it is refused.
_LOOKS = frozenset(
    [
        "GetStatus",
        "List",
        "Show",
        "ShowEvent",
        "Stat",
        "Stage",
        "AddSideband",
        "AddProcesses",
        "Reopen",
        "BeginSnapshot",
        "CopyRing",
        "GetInfo",
        "GetInterfaceDescription",
        "GetMissing",
    ]
)
#: What a refusal looks like; other errors are mistakes.
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EDQUOT)

#: A log that has grown beyond this is put aside as audit.1, in the place of the one before it, so
#: that nobody can fill a disk with refusals.
_MOST_BYTES = 8 << 20


class Audit:
    """Appends to one file.

    Args:
        path: of the log; the one before it is called the same and ".1".
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._complained = False

    def note(self, peer: Peer, method: str, name: object, number: int = 0) -> None:
        """A request was carried out, or failed with this errno."""
        if number in _REFUSALS or (not number and method not in _LOOKS):
            result = errno.errorcode.get(number, str(number)) if number else "ok"
            who = f"pid={peer.pid} uid={peer.uid} gid={peer.gid}"
            self._write(f"{who} method={method} name={_word(name)} result={result}")

    def happened(self, what: str, name: str, why: str) -> None:
        """A change that nobody asked for just now."""
        self._write(
            f"pid={os.getpid()} uid={os.geteuid()} did={what} name={_word(name)} why={why!r}"
        )

    def _write(self, words: str) -> None:
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
        try:
            fd = self._open()
            try:
                line = f"{stamp}.{now % 10**9 // 1000:06d}Z {words}\n"
                os.write(fd, line.encode(errors="replace"))
                if os.fstat(fd).st_size > _MOST_BYTES:
                    os.rename(self.path, f"{self.path}.1")
            finally:
                os.close(fd)
        except OSError as error:
            if not self._complained:
                say(f"the audit log cannot be written: {error}")
            self._complained = True

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(self.path, flags, 0o600)
        except FileNotFoundError:
            os.mkdir(os.path.dirname(self.path), 0o700)
            return os.open(self.path, flags, 0o600)


def _word(name: object) -> str:
    """A name that may be anything, as it was asked for, so that it cannot look like a line."""
    text = str(name)
    plain = text.isascii() and text.isprintable() and " " not in text
    return text if plain else repr(text)
