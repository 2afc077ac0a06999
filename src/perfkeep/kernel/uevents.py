"""The kernel's word that a CPU went offline or came online: netlink, NETLINK_KOBJECT_UEVENT.

Of all uevents a filter in the kernel lets only these through, so that nobody is woken by a disk.
"""

from __future__ import annotations

import ctypes
import errno
import re
import socket
import struct
from collections.abc import Iterator

from perfkeep.abi.seccomp import SOCK_FILTER

_NETLINK_KOBJECT_UEVENT = 15
_FROM_THE_KERNEL = 1  # the multicast group
_SO_ATTACH_FILTER = 26

_OFFLINE = re.compile(rb"offline@/devices/system/cpu/cpu(\d{1,5})\0")

# A message begins with "online@/devices/…" or "offline@/devices/…", and no other action does.
_WORDS = (b"onli", b"offl")
_LD_W_ABS, _JEQ, _RET = 0x20, 0x15, 0x06


def watch_cpus() -> socket.socket:
    """A non-blocking socket that becomes readable when CPUs (or memory) come or go.

    Raises:
        OSError: EPERM, EPROTONOSUPPORT: not here (a container may not).
    """
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, _NETLINK_KOBJECT_UEVENT
    )
    try:
        _attach(sock)
        sock.bind((0, _FROM_THE_KERNEL))
    except BaseException:
        sock.close()
        raise
    return sock


def _attach(sock: socket.socket) -> None:
    onli, offl = (int.from_bytes(word, "big") for word in _WORDS)  # the network's byte order
    code = [
        (_LD_W_ABS, 0, 0, 0),
        (_JEQ, 1, 0, onli),
        (_JEQ, 0, 1, offl),
        (_RET, 0, 0, 0xFFFF),
        (_RET, 0, 0, 0),
    ]
    program = b"".join(SOCK_FILTER.pack(*instruction) for instruction in code)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(code), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)


def heard(sock: socket.socket) -> Iterator[int | None]:
    """What the kernel has said, one by one: the CPU that went offline, None for anything else.

    Each is taken out of the socket when the next is asked for: whoever dies while dealing with one
    leaves it to the next to hold the socket.
    """
    while True:
        try:
            words = _OFFLINE.match(sock.recv(8192, socket.MSG_PEEK))
            yield int(words[1]) if words else None
            sock.recv(1)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            yield None  # some were lost; that CPUs are missing can still be seen
