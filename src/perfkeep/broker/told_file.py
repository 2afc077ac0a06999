"""The crash copy of what a sideband told. How it looks: wire.spill."""

from __future__ import annotations

import os
import zlib

from perfkeep.broker.sideband import Sideband
from perfkeep.errors import DataError
from perfkeep.kernel.fd import OwnedFd
from perfkeep.wire import spill
from perfkeep.wire.spill import SLOT_A, SLOT_B, ToldSlot


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """All of it, at a place of a file."""
    rest = memoryview(data)
    while rest:
        done = os.pwrite(fd, rest, offset)
        rest, offset = rest[done:], offset + done


class ToldFile:
    """A sideband and its file.

    Args:
        capacity: bytes of the file.
    """

    def __init__(self, sideband: Sideband, fd: OwnedFd, capacity: int) -> None:
        self.sideband = sideband
        self._fd = fd
        self._area_bytes = spill.told_area(capacity)
        self._last: ToldSlot | None = None
        #: Number of the log that `_last` is of; none, before the first step.
        self._log = -1

    def step(self) -> int:
        """Write what is new. Gives the bytes written.

        Raises:
            OSError: EIO and what else a disk can say.
        """
        fd, last = self._fd.fileno(), self._last
        if last is None:
            last = self._read()
        log, logged, unread = self.sideband.since(self._log, last.logged)
        area, at = last.area, last.logged
        if log != self._log:
            area, at = 1 - last.area, 0
        unread = unread[: max(0, self._area_bytes - at - len(logged))]
        what = at + len(logged), len(unread), zlib.crc32(unread)
        if (area, *what) == (last.area, last.logged, last.unread, last.crc32):
            return 0
        new = ToldSlot(area, last.sequence + 1, *what)
        base = spill.PAGE + area * self._area_bytes + at
        write_all(fd, logged, base)
        write_all(fd, unread, base + len(logged))
        os.fdatasync(fd)
        # The other one of the two: if this is cut short, the last one is still there.
        write_all(fd, new.pack(), SLOT_A if new.sequence % 2 else SLOT_B)
        os.fdatasync(fd)
        self._last, self._log = new, log
        return len(logged) + len(unread)

    def _read(self) -> ToldSlot:
        """Where a broker before us stopped; its log is not ours, so the other area comes next."""
        try:
            found = spill.told_slot(os.pread(self._fd.fileno(), spill.PAGE, 0))
        except DataError:
            found = None
        return found or ToldSlot(1, 0, 0, 0, 0)
