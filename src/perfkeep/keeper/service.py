"""The keeper process: serves one broker over a socketpair, and starts another when it dies.

Wakes only when the broker speaks or goes away. It holds no socket that anyone else can reach.
"""

from __future__ import annotations

import errno
import os
import socket
import time

from perfkeep.keeper.shelf import Shelf
from perfkeep.kernel.spawn import spawn
from perfkeep.wire import packets

#: A broker that dies within this many seconds of its start, and served nobody, died of its start.
_QUICK_DEATH_S = 5.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 60.0


class Keeping:
    """What a keeper has: the shelf, the lock, and whether the broker that it serves got so far as
    to serve clients.
    """

    def __init__(self, lock: int) -> None:
        self.shelf = Shelf()
        self.lock = lock
        self.broker_serves = False


def answer(link: socket.socket, kept: Keeping, packet: bytes, fd: int) -> bool:
    """Carry out one request. False: the broker said that everything ends."""
    shelf = kept.shelf
    number = 0
    try:
        request = packets.decode(packet)
        if fd == packets.CUT_OFF:
            number = errno.EMFILE
        elif request.op == packets.PUT:
            taken, fd = fd, -1
            shelf.put(request.key, request.value, taken, request.ring_bytes)
        elif request.op == packets.DROP:
            shelf.drop(request.key)
        elif request.op == packets.UNMAP:
            shelf.unmap(request.key)
        elif request.op == packets.LIST:
            for key, slot in shelf.items():
                item = packets.Request(packets.PUT, key, slot.value, slot.ring_bytes)
                packets.send(link, packets.encode(item), slot.fd)
        elif request.op == packets.LOCK:
            os.dup2(fd, kept.lock, inheritable=False)
        elif request.op == packets.SERVES:
            kept.broker_serves = True
        else:
            shelf.drop(b"")
    except ValueError:
        number = errno.EINVAL
    except OSError as error:
        number = error.errno or errno.EIO
    finally:
        if fd >= 0:
            os.close(fd)
    packets.send(link, packets.encode_answer(number))
    return number != 0 or request.op != packets.BYE


def serve(link: socket.socket, kept: Keeping) -> bool:
    """Answer until the broker goes away. False: it said that everything ends."""
    kept.broker_serves = False
    while True:
        packet, fd = packets.receive(link)
        if not packet:
            return True
        try:
            if not answer(link, kept, packet, fd):
                return False
        except ConnectionError:
            return True


def start_broker(command: list[str], lock: int) -> socket.socket:
    """A new broker at the other end of a new link; the instance lock passes on to it.

    Raises:
        OSError: no process or no fd to be had.
    """
    ours, theirs = packets.link_pair()
    with theirs:
        try:
            spawn([*command, "--link", str(theirs.fileno())], (theirs.fileno(), lock))
        except OSError:
            ours.close()
            raise
    return ours


def replace_broker(command: list[str], lock: int, pause: float) -> socket.socket:
    """`start_broker`, again and again until it works: what we hold must not die with us."""
    while True:
        print(f"perfkeep-keeper: the broker is gone; another starts in {pause} s", flush=True)
        time.sleep(pause)
        try:
            return start_broker(command, lock)
        except OSError as error:
            print(f"perfkeep-keeper: no broker can be started: {error}", flush=True)
            pause = min(_LONGEST_PAUSE_S, pause * 2 or _FIRST_PAUSE_S)


def in_charge(lock: int) -> bool:
    """Whether the lock names this process. While one keeper hands over to another there are two,
    and the broker may die: the one that it wrote down goes on, so never both, and never none.
    """
    return f"keeper {os.getpid()}\n" in os.pread(lock, 4096, 0).decode(errors="replace")


def run(link: socket.socket, lock: int, command: list[str]) -> None:
    """Keep until the broker says that everything ends, or dies while there is nothing to keep or
    another keeper in charge.

    Args:
        command: arguments of Python that start a broker, less the link.
    """
    kept = Keeping(lock)
    pause = 0.0
    while True:
        since = time.monotonic()
        if not serve(link, kept):
            return
        kept.shelf.unmap(b"")  # the broker's mappings have ended with it
        link.close()
        if not kept.shelf.is_worth_keeping or not in_charge(lock):
            return
        # A broker that dies of its start must not be started in a tight loop for ever; one that is
        # killed shall not be waited for.
        quick = not kept.broker_serves and time.monotonic() - since < _QUICK_DEATH_S
        pause = min(_LONGEST_PAUSE_S, pause * 2 or _FIRST_PAUSE_S) if quick else 0.0
        link = replace_broker(command, lock, pause)
