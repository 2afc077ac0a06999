"""What broker and keeper say to each other, over a SOCK_SEQPACKET socketpair.

One request a packet, one answer a packet; an fd rides along by SCM_RIGHTS. Standard library
only, for the keeper's sake.

    request  op u8 · key length u16 · ring bytes u64 · key · value      (+ at most one fd)
    answer   errno u32                                                  to all but LIST
    item     the request that would PUT it again      (+ its fd)        to LIST, one a packet
    end      errno u32                                                  closes the items
"""

from __future__ import annotations

import array
import errno
import socket
import struct
import sys
from typing import NamedTuple

_HEADER = struct.Struct("=BHQ")
_ANSWER = struct.Struct("=I")

PUT, DROP, LIST, BYE, LOCK, SERVES, UNMAP = 1, 2, 3, 4, 5, 6, 7

#: A packet is one skb, and the kernel takes none beyond the send buffer (net.core.wmem_default,
#: 208 KiB). The longest value is a tracepoint's format.
MAX_PACKET = 160 << 10


class Request(NamedTuple):
    """PUT: hold `value`, and the fd that rides along, under `key`; map `ring_bytes` of the fd
    (0: no mapping). DROP: forget every key that begins with `key`; mappings stay until UNMAP, which
    says that the broker has unmapped the dropped rings below `key`. LIST: tell all that is held.
    BYE: everything ends. LOCK: the fd that rides along takes the place of the instance's lock.
    SERVES: the broker has come so far that it serves clients.
    """

    op: int
    key: bytes = b""
    value: bytes = b""
    ring_bytes: int = 0


def encode(request: Request) -> bytes:
    header = _HEADER.pack(request.op, len(request.key), request.ring_bytes)
    return header + request.key + request.value


def decode(packet: bytes) -> Request:
    """Raises: ValueError: not a request."""
    if len(packet) < _HEADER.size:
        raise ValueError(f"a packet has at least {_HEADER.size} bytes, this one {len(packet)}")
    op, key_length, ring_bytes = _HEADER.unpack_from(packet)
    body = packet[_HEADER.size :]
    if op not in (PUT, DROP, LIST, BYE, LOCK, SERVES, UNMAP) or key_length > len(body):
        raise ValueError(f"no such request: op {op}, key of {key_length} in {len(body)} bytes")
    return Request(op, body[:key_length], body[key_length:], ring_bytes)


def encode_answer(errno: int) -> bytes:
    return _ANSWER.pack(errno)


def decode_answer(packet: bytes) -> int | None:
    """The errno of an answer, or None: the packet is an item."""
    return int(_ANSWER.unpack(packet)[0]) if len(packet) == _ANSWER.size else None


#: In place of an fd that came and could not be taken: this process has as many as it may have.
CUT_OFF = -2


def receive(link: socket.socket) -> tuple[bytes, int]:
    """One packet and its fd (-1: none, CUT_OFF). An empty packet: the other end is gone."""
    try:
        data, ancillary, flags, _ = link.recvmsg(
            MAX_PACKET, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionError:
        return b"", -1
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and len(payload) >= 4:
            return data, int.from_bytes(payload[:4], sys.byteorder)
    return data, CUT_OFF if flags & socket.MSG_CTRUNC else -1


def send(link: socket.socket, data: bytes, fd: int = -1) -> None:
    """One packet.

    Raises:
        OSError: EPIPE or ECONNRESET when the other end is gone; EMSGSIZE.
    """
    if len(data) > MAX_PACKET:  # the other end would read it cut short
        raise OSError(
            errno.EMSGSIZE, f"a packet may have {MAX_PACKET} bytes, this one has {len(data)}"
        )
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
    link.sendmsg([data], rights, socket.MSG_NOSIGNAL)


def link_pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a link."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
