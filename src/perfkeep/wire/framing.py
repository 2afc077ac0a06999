"""Varlink framing without I/O: bytes in, whole messages out.

A message is one JSON object and a NUL byte. A message that fds travel with says how many in
its member "fds"; they arrive in order, so a queue is enough to match them up again.
"""

from __future__ import annotations

import errno

import msgspec

from perfkeep.errors import PerfkeepError

#: No message may be longer. A start of 2,000 tracepoints with their formats takes 4 MiB.
MAX_MESSAGE = 16 << 20

#: SCM_MAX_FD: the kernel passes no more fds with one message.
MAX_FDS = 253

#: The one error that the interface has; its errno says what kind.
FAILED = "org.perfkeep.Failed"


class Call(msgspec.Struct, omit_defaults=True):
    """A request as it stands on the wire."""

    method: str
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    fds: int = 0


class Reply(msgspec.Struct, omit_defaults=True):
    """An answer as it stands on the wire."""

    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    error: str | None = None
    fds: int = 0


class Failed(msgspec.Struct):
    """Parameters of the error FAILED."""

    errno: int
    message: str
    hint: str = ""


def encode(message: Call | Reply) -> bytes:
    """The message with its terminator."""
    return msgspec.json.encode(message) + b"\0"


class Splitter:
    """Cuts a stream of bytes into messages."""

    __slots__ = ("_buffer", "_longest", "_searched")

    def __init__(self, longest: int = MAX_MESSAGE) -> None:
        self._longest = longest
        self._buffer = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> None:
        """Take what the socket gave.

        Raises:
            PerfkeepError: EMSGSIZE when a message grows beyond the longest.
        """
        self._buffer += data
        if len(self._buffer) > self._longest and b"\0" not in self._buffer:
            raise PerfkeepError(
                errno.EMSGSIZE, f"a message may have {self._longest} bytes, this one has more"
            )

    def next(self) -> bytes | None:
        """The next whole message without its terminator, or None until more arrives."""
        end = self._buffer.find(b"\0", self._searched)
        if end < 0:
            self._searched = len(self._buffer)
            return None
        message = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return message
