"""Asking the supervisors of `perfkeep exec` what they opened: nobody else knows an event's attr.

Each listens on a socket beside its user's instance, in a folder that only that user may enter. A
question is a list of kernel ids, an answer what is known of them; one packet each.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import msgspec

from perfkeep.wire.instance import Instance, of_caller
from perfkeep.wire.socket import peer_of

#: Ids in one question: the answer is then well below what a packet may have.
_MOST = 128
_PACKET = 1 << 17
_PATIENCE_S = 2.0


class Known(msgspec.Struct, frozen=True):
    """An event of a CPU: the kernel's id, its attr, and what config1 pointed at in a probe."""

    kernel_id: int
    attr: bytes
    cpu: int
    path: str | None = None


def _folder(where: Instance) -> str:
    return of_caller(where).socket + ".exec"


def listen(where: Instance) -> socket.socket:
    """A supervisor's own socket.

    Raises:
        OSError: it cannot be made.
    """
    folder = _folder(where)
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    for path in list(_sockets(where)):
        _tidy(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = f"{folder}/{os.getpid()}"
    with suppress(FileNotFoundError):
        os.unlink(path)
    listener.bind(path)
    listener.listen(8)
    return listener


def _tidy(path: str) -> None:
    """Take away the socket of a supervisor that was killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with suppress(OSError):
                os.unlink(path)
        except OSError:
            pass  # it is busy, or has just gone


def close(listener: socket.socket) -> None:
    """The supervisor ends, and takes its socket along."""
    path = listener.getsockname()
    listener.close()
    with suppress(OSError):
        os.unlink(path)
    with suppress(OSError):
        os.rmdir(os.path.dirname(path))


def serve(listener: socket.socket, look_up: Callable[[int], Known | None]) -> None:
    """Answer one who asks; returns when it has no more questions.

    Raises:
        OSError, msgspec.MsgspecError: it does not speak our language.
    """
    client, _ = listener.accept()
    with client:
        client.settimeout(_PATIENCE_S)
        if peer_of(client).uid not in (0, os.geteuid()):
            return
        while question := client.recv(_PACKET):
            ids = msgspec.json.decode(question, type=list[int])
            found = [known for id in ids[:_MOST] if (known := look_up(id))]
            client.sendall(msgspec.json.encode(found))


def ask(where: Instance, kernel_ids: Iterable[int]) -> dict[int, Known]:
    """What the supervisors of an instance know of some events, by their kernel ids."""
    missing, found = list(kernel_ids), dict[int, Known]()
    for path in _sockets(where):
        with (
            suppress(OSError, msgspec.MsgspecError),
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel,
        ):
            channel.settimeout(_PATIENCE_S)
            channel.connect(path)
            for first in range(0, len(missing), _MOST):
                channel.sendall(msgspec.json.encode(missing[first : first + _MOST]))
                answer = msgspec.json.decode(channel.recv(_PACKET), type=list[Known])
                found.update((known.kernel_id, known) for known in answer)
    return found


def _sockets(where: Instance) -> Iterator[str]:
    with suppress(OSError):
        for name in os.listdir(_folder(where)):
            yield f"{_folder(where)}/{name}"
