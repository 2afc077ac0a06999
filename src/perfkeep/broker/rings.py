"""One mapped ring and consistent copies of it, taken without pausing anything.

Bytes only: what the records in it mean is for the client to find out.

A backward ring (write_backward) grows downwards; data_head is the newest record's offset and
the valid bytes lie above it. A forward ring grows upwards and they lie below data_head. Either
is copied into one straight piece:

    backward   [head … size) [0 … head)      newest → oldest
    forward    [head … size) [0 … head)      oldest → newest

A ring that was mapped writable first does not overwrite: what its reader has not consumed, between
data_tail and data_head, stays as it is.

What is overwritten while we copy lies at the oldest end, as far as data_head moved; both
heads go with the copy, and the reader cuts that much off. A copy that was held up, so that most of
it was overwritten, is made again.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections import deque
from contextlib import suppress
from typing import NamedTuple

from perfkeep.abi.perf_event import DATA_HEAD_OFFSET, DATA_TAIL_OFFSET
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.memfd import SEALS

_HEAD_WORD, _TAIL_WORD = DATA_HEAD_OFFSET // 8, DATA_TAIL_OFFSET // 8
_MASK64 = (1 << 64) - 1
#: How often a ring is copied at most: whoever fills it faster than that keeps nobody waiting.
_TRIES = 4


class RingCopy(NamedTuple):
    """A sealed memfd and what a reader needs to cut it.

    Attributes:
        unread: of a ring that does not overwrite, how many of the newest bytes have not been
            consumed, so that they cannot have changed meanwhile; None: the ring overwrites.
    """

    fd: OwnedFd
    bytes: int
    head_before: int
    head_after: int
    unread: int | None = None


def pieces(head: int, size: int, backward: bool) -> list[tuple[int, int]]:
    """The (start, end) of the valid bytes in the data area, in the order of the copy."""
    written = (-head if backward else head) & _MASK64
    at = head % size
    if written < size:
        found = [(size - written, size)] if backward else [(0, written)]
    else:
        found = [(at, size), (0, at)]
    return [(start, end) for start, end in found if end > start]


class Unmapped:
    """Keys of rings that this process no longer maps. The keeper unmaps them last, because the kernel
    credits the last process that unmaps a ring, and the keeper is the one that was charged.
    """

    def __init__(self) -> None:
        self._keys: deque[bytes] = deque()
        #: The loop's; a byte in it has `take` called.
        self.wake_fd = -1

    def put(self, key: bytes) -> None:
        """Called by any thread."""
        self._keys.append(key)
        if self.wake_fd >= 0:
            with suppress(OSError):  # a full pipe wakes the loop as well
                os.write(self.wake_fd, b"\0")

    def take(self) -> list[bytes]:
        return [self._keys.popleft() for _ in range(len(self._keys))]


unmapped = Unmapped()


class MappedRing:
    """A read-only mapping of one CPU's ring.

    There is no close: the registry, a snapshot and a copying thread may all hold it, and the
    mapping goes with the last of them. `unmapped` is told then.
    """

    __slots__ = (
        "_mapping", "_words", "backward", "bytes", "cpu", "key", "overwrites", "owner", "users",
    )  # fmt: skip

    def __init__(
        self,
        cpu: int,
        owner: OwnedFd,
        key: bytes,
        bytes: int,
        backward: bool,
        overwrites: bool = True,
    ) -> None:
        """
        Args:
            owner: the event that owns the ring.
            key: of the owner on the keeper's shelf.
            bytes: of the data area, without the control page.
            overwrites: it was mapped read-only first.

        Raises:
            OSError: mmap(2)'s errno.
        """
        self.cpu = cpu
        self.owner = owner
        self.key = key
        #: Events of the recording that write into this ring.
        self.users = 0
        self.bytes = bytes
        self.backward = backward
        self.overwrites = overwrites
        self._mapping = mmap.mmap(
            owner.fileno(), bytes + mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ
        )
        self._words = memoryview(self._mapping).cast("Q")

    def __del__(self) -> None:
        with suppress(AttributeError, BufferError):  # it was never mapped, or a view of it remains
            self._words.release()
            self._mapping.close()
        unmapped.put(self.key)

    def head(self) -> int:
        """data_head now. One aligned 8-byte load; on x86 every load is an acquire, elsewhere
        the system calls around it order it well before and after the copy.
        """
        return self._words[_HEAD_WORD]

    def data(self, start: int, end: int) -> memoryview:
        """Bytes of the data area, as they are at this moment."""
        return memoryview(self._mapping)[mmap.PAGESIZE + start : mmap.PAGESIZE + end]

    def copy(self) -> RingCopy:
        """Copy what is in the ring into a sealed memfd. May run in a thread: the GIL is free
        while the kernel copies.

        Raises:
            OSError: ENOSPC or ENOMEM when the machine has no memory for it, EMFILE.
        """
        fd = OwnedFd(os.memfd_create("perfkeep-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        try:
            for _ in range(_TRIES):
                before = self.head()
                offset = self._copy_into(fd.fileno(), before)
                after = self.head()
                moved = (before - after if self.backward else after - before) & _MASK64
                if moved <= self.bytes // 2:
                    break
            fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, SEALS)
        except BaseException:
            fd.close()
            raise
        return RingCopy(fd, offset, before, after, self.unread(before))

    def unread(self, head: int) -> int | None:
        """The number of bytes up to this data_head that the ring's reader has not consumed by now;
        None: the ring overwrites, or its data_tail makes no sense.
        """
        if self.overwrites:
            return None
        tail = self._words[_TAIL_WORD]
        ahead = (tail - head if self.backward else head - tail) & _MASK64
        if ahead >= 1 << 63:  # it has consumed more since
            return 0
        return ahead if ahead <= self.bytes else None

    def _copy_into(self, fd: int, head: int) -> int:
        """How many bytes these are."""
        data = memoryview(self._mapping)[mmap.PAGESIZE :]
        offset = 0
        for start, end in pieces(head, self.bytes, self.backward):
            while start < end:
                done = os.pwrite(fd, data[start:end], offset)
                start, offset = start + done, offset + done
        return offset
