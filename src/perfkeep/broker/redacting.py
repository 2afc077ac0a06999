"""Copies for guests, without what they may not see: the broker's end of the redactor."""

from __future__ import annotations

import base64
import errno
import fcntl
import os
import socket
from collections.abc import Sequence

import msgspec

from perfkeep.abi.perf_event import Attr, Sample
from perfkeep.abi.records import OPEN_FIELDS, beyond
from perfkeep.broker.rings import RingCopy
from perfkeep.errors import BrokerError
from perfkeep.kernel import sysctl
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.spawn import spawn
from perfkeep.wire.messages import KindInSnapshot, Snapshot
from perfkeep.wire.socket import Channel

_PATIENCE_S = 10
# A ring of the smallest records was seen to take a fifth of that time.
_BYTES_PER_S = 2 << 20
_FAILED = "the kernel's addresses could not be taken out of the copy; ask again"
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def may_see_kernel() -> bool:
    """What /proc/kallsyms asks of everyone (kallsyms_show_value): with these settings it shows them
    to anybody. Who has CAP_SYSLOG would see them otherwise too, but what a peer is capable of
    cannot be known from here without a race.
    """
    kptr_restrict = int(sysctl.read("kernel.kptr_restrict"))
    paranoid = int(sysctl.read("kernel.perf_event_paranoid"))
    return kptr_restrict == 0 and paranoid <= 1


def needs_redacting(snapshot: Snapshot) -> bool:
    """True if a guest's copy must be redacted: it may have registers and stacks, which guests never
    see, or the kernel hides its addresses from everybody.
    """
    kinds = (Attr.unpack(kind.kind.attr).sample_type for kind in snapshot.kinds)
    return any(beyond(kind, OPEN_FIELDS) for kind in kinds) or not may_see_kernel()


def check_physical(snapshot: Snapshot) -> None:
    """Raises: BrokerError: EACCES: it has physical addresses, which cannot be told from others."""
    for kind in snapshot.kinds:
        if Attr.unpack(kind.kind.attr).sample_type & (Sample.PHYS_ADDR | Sample.AUX):
            raise BrokerError(
                errno.EACCES,
                f"{kind.kind.name} of {snapshot.recording.name!r} records physical addresses or "
                "hardware traces, which only its owner and root may see",
            )


class Redactor:
    """One process, for the copies of one snapshot.

    Args:
        main: of the redactor, to be run.
        kinds: of event of which the copies may hold records.
    """

    def __init__(self, main: str, kinds: Sequence[KindInSnapshot]) -> None:
        self._sources = [
            [
                base64.b64encode(kind.kind.attr).decode(),
                [id for ids in kind.kernel_ids.values() for id in ids],
                kind.kind.tracepoint.format if kind.kind.tracepoint else "",
            ]
            for kind in kinds
        ]
        ours, theirs = socket.socketpair()
        with theirs:
            spawn(["-I", main, "--link", str(theirs.fileno())], (theirs.fileno(),))
        self._channel = Channel(ours)
        self._failed = False

    def redact(self, copy: RingCopy, backward: bool, ring_bytes: int) -> RingCopy:
        """The same without the kernel's addresses. Takes seconds for a large one: not in the loop.

        Args:
            ring_bytes: of the ring that was copied.

        Raises:
            BrokerError: EIO: the redactor died, ETIMEDOUT: it does not answer.
        """
        if self._failed:
            copy.fd.close()
            raise BrokerError(errno.EIO, _FAILED)
        # An answer that comes too late would pass for the next one.
        self._failed = True
        made = self._ask(copy, backward, ring_bytes)
        _check(made, copy.bytes)
        self._failed = False
        return copy._replace(fd=made)

    def _ask(self, copy: RingCopy, backward: bool, ring_bytes: int) -> OwnedFd:
        moved = copy.head_after - copy.head_before
        seconds = _PATIENCE_S + copy.bytes // _BYTES_PER_S
        request = {
            "backward": backward,
            "overwritten": (-moved if backward else moved) % (1 << 64) - (ring_bytes - copy.bytes),
            "unread": copy.unread,
            "seconds": seconds,
            "sources": self._sources,
        }
        self._channel.sock.settimeout(seconds)
        rest = memoryview(msgspec.json.encode(request) + b"\0")
        fds = [copy.fd.fileno()]
        try:
            while rest:
                rest, fds = rest[self._channel.send(rest, fds) :], []
            while self._channel.splitter.next() is None:
                if not self._channel.receive():
                    raise ConnectionResetError
            (made,) = self._channel.take_fds(1)
            return made
        except TimeoutError as error:
            raise BrokerError(errno.ETIMEDOUT, "taking out the kernel's addresses hangs") from error
        except ConnectionError as error:
            raise BrokerError(errno.EIO, _FAILED) from error
        finally:
            copy.fd.close()

    def close(self) -> None:
        """It ends when it finds that we have."""
        self._channel.close()


def _check(made: OwnedFd, size: int) -> None:
    """What goes to a reader must be what was asked for, and stay so."""
    seals = fcntl.fcntl(made.fileno(), fcntl.F_GET_SEALS)
    if os.fstat(made.fileno()).st_size != size or seals & _SEALS != _SEALS:
        made.close()
        raise BrokerError(errno.EIO, _FAILED)
