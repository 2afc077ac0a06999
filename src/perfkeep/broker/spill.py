"""The crash copy of rings on disk: written every so often, in a thread of its own.

The files were made and opened by the client. Here they are only written to, by offset: no path is
looked up, and no space is needed that is not theirs already. How they look: wire.spill.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import time

from perfkeep.broker.rings import MappedRing
from perfkeep.broker.sideband import Sideband
from perfkeep.broker.told_file import ToldFile, write_all
from perfkeep.errors import BrokerError, DataError
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.sysctl import boot_id
from perfkeep.wire import spill
from perfkeep.wire.socket import Peer
from perfkeep.wire.spill import COMMIT, INTENT, SLOT_A, SLOT_B, SLOT_I, Meta, Slot


def check(fd: OwnedFd, size: int) -> None:
    """A client says that this is a file to spill to.

    Raises:
        BrokerError: EINVAL: it is not, or too small, or not open for reading and writing.
    """
    found = os.fstat(fd.fileno())
    mode = fcntl.fcntl(fd.fileno(), fcntl.F_GETFL) & os.O_ACCMODE
    if not stat.S_ISREG(found.st_mode) or found.st_size < size or mode != os.O_RDWR:
        raise BrokerError(
            errno.EINVAL, f"a file to spill to is open for writing and has {size} bytes at least"
        )


def spill_files(
    peer: Peer, fds: list[OwnedFd], cpus: list[int], ring_bytes: int
) -> dict[int, OwnedFd]:
    """The last fds of a request as files to spill to: those of no CPU, and one for each CPU.

    Raises:
        BrokerError: EPERM: not from somebody who could make the broker wait for a file system of
            theirs · EINVAL: these are no such files.
    """
    if peer.uid not in (0, os.geteuid()):
        raise BrokerError(
            errno.EPERM,
            "only root and the owner of an instance may spill",
            hint="use an instance of your own, without --system and PERFKEEP_SOCKET",
        )
    sizes = {spill.META: spill.meta_file_bytes(0), spill.TOLD: spill.told_file_bytes(len(cpus))}
    sizes |= dict.fromkeys(cpus, spill.ring_file_bytes(ring_bytes))
    if len(fds) < len(sizes):
        raise BrokerError(errno.EINVAL, f"a file for each of {len(cpus)} CPUs, for meta and told")
    files = dict(zip(sizes, fds[-len(sizes) :], strict=True))
    for cpu, file in files.items():
        check(file, sizes[cpu])
    return files


class RingFile:
    """One ring and its file.

    Args:
        longest: no record of the ring is longer, in bytes.
    """

    def __init__(self, ring: MappedRing, fd: OwnedFd, longest: int) -> None:
        self.ring = ring
        self.fd = fd
        #: What may be half-written when data_head is read: one record in each of four contexts.
        self.margin = 4 * longest
        self._boot = boot_id()
        self._last: Slot | None = None
        self._known = False

    def _read(self) -> Slot | None:
        """The last commit, when a broker before us wrote it, of this ring."""
        try:
            state = spill.ring_state(os.pread(self.fd.fileno(), spill.PAGE, 0))
        except DataError:
            return None
        slot = state.slot._replace(valid=state.valid)
        alike = (slot.boot_id, slot.ring_bytes, slot.cpu, slot.backward)
        ring = self.ring
        return slot if alike == (self._boot, ring.bytes, ring.cpu, ring.backward) else None

    def step(self) -> int:
        """Write what is new. Gives the bytes of records written.

        Raises:
            OSError: EIO and what else a disk can say.
        """
        if not self._known:  # only now: whoever wrote to it before has finished
            self._last, self._known = self._read(), True
        ring, last, fd = self.ring, self._last, self.fd.fileno()
        head = ring.head()
        written = (-head if ring.backward else head) & (1 << 64) - 1
        new = min(written, ring.bytes) if last is None else spill.moved(last, head)
        if last is not None and not new:
            return 0
        sequence, area, older = 1, 0, 0
        if last is not None:
            sequence, area, older = last.sequence + 1, last.area, last.valid
        if last is not None and new > ring.bytes // 2:
            # Too much of the last commit would be gone if this one is never finished.
            new, older, area = min(written, ring.bytes), 0, 1 - area
        intent = self._slot(INTENT, area, sequence, head, 0)
        os.pwrite(fd, intent.pack(), SLOT_I)
        os.fdatasync(fd)
        base = spill.PAGE + area * ring.bytes
        for start, end in spill.pieces(head, new, ring.bytes, ring.backward):
            write_all(fd, ring.data(start, end), base + start)
        valid = self._untouched(head, new, min(ring.bytes, new + older))
        os.fdatasync(fd)
        commit = self._slot(COMMIT, area, sequence + 1, head, valid)
        # The other one of the two: if this is cut short, the last commit is still there.
        at = SLOT_A if commit.sequence // 2 % 2 else SLOT_B
        os.pwrite(fd, commit.pack(), at)
        os.fdatasync(fd)
        self._last = commit
        return new

    def _untouched(self, head: int, new: int, valid: int) -> int:
        """How much holds, though the kernel went on writing while it was copied: as it comes
        round, what it overwrites first is the oldest.
        """
        after = self.ring.head()
        since = (head - after if self.ring.backward else after - head) & (1 << 64) - 1
        safe = max(0, self.ring.bytes - since - self.margin)
        return min(valid, safe) if new > safe else valid

    def _slot(self, what: int, area: int, sequence: int, head: int, valid: int) -> Slot:
        ring = self.ring
        return Slot(
            what, ring.backward, ring.cpu, area, sequence, ring.bytes, head, valid,
            time.clock_gettime_ns(time.CLOCK_MONOTONIC), time.time_ns(), self._boot,
        )  # fmt: skip


class Job:
    """One recording that is spilled.

    Args:
        files: by CPU, and those of no CPU as wire.spill numbers them.
    """

    def __init__(
        self,
        every_ns: int,
        longest: int,
        files: dict[int, OwnedFd],
        rings: list[MappedRing],
        sideband: Sideband | None,
    ) -> None:
        self.every_ns = every_ns
        self.meta_fd = files[spill.META]
        self._sideband = sideband
        self._told: ToldFile | None = None
        if sideband is not None and spill.TOLD in files:
            file = files[spill.TOLD]
            self._told = ToldFile(sideband, file, os.fstat(file.fileno()).st_size)
        self.rings = [
            RingFile(ring, files[ring.cpu], longest) for ring in rings if ring.cpu in files
        ]
        self._cpus = frozenset(files)
        #: What is to be written to the meta file, the next time.
        self.meta: Meta | None = None
        self.due_ns = 0
        #: CLOCK_REALTIME: what was recorded until then is on disk.
        self.last_ns = 0
        self.bytes = sum(os.fstat(fd.fileno()).st_size for fd in files.values())
        self.problem = ""
        without = sorted(ring.cpu for ring in rings if ring.cpu not in files)
        self._lacks = f"CPU {without[0]} joined later and is not in it" if without else ""
        self._sequence = 0

    def covers(self, rings: list[MappedRing], sideband: Sideband | None) -> bool:
        """Whether it is of these, as far as they have files."""
        mine = [one.ring for one in self.rings] == [r for r in rings if r.cpu in self._cpus]
        return mine and self._sideband is sideband

    def step(self) -> None:
        """Write what is new of all rings; what goes wrong is told in `problem`."""
        began_ns = time.time_ns()
        try:
            self._write_meta()
            for ring in self.rings:
                ring.step()
            if self._told is not None:
                self._told.step()
        except OSError as error:
            self.problem = f"the last spill failed: {error.strerror or error}"
        else:
            self.problem, self.last_ns = self._lacks, began_ns

    def _write_meta(self) -> None:
        meta = self.meta
        if meta is None:
            return
        fd = self.meta_fd.fileno()
        capacity = os.fstat(fd).st_size
        if not self._sequence:
            try:
                self._sequence, _ = spill.parse_meta(os.pread(fd, capacity, 0))
            except DataError:
                pass  # nobody has written it yet
        at, data = spill.pack_meta(meta, self._sequence + 1, capacity)
        write_all(fd, data, at)
        os.fdatasync(fd)
        self._sequence += 1
        if self.meta is meta:
            self.meta = None


class Spiller:
    """The thread, while there is something to spill; without that nothing ever wakes."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, id: int, job: Job) -> None:
        """Spill a recording from now on, at once for the first time."""
        with self._changed:
            self.jobs[id] = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()
            self._changed.notify()

    def drop(self, id: int) -> None:
        """Its files stay as they are."""
        with self._changed:
            self.jobs.pop(id, None)
            self._changed.notify()

    def finish(self) -> None:
        """Write everything a last time."""
        with self._changed:
            jobs = list(self.jobs.values())
            self.jobs.clear()
        for job in jobs:
            job.step()

    def _run(self) -> None:
        while True:
            job = self._next()
            if job is None:
                return
            job.step()
            job.due_ns = time.monotonic_ns() + job.every_ns

    def _next(self) -> Job | None:
        """The job that is due, waited for; None when there is none left at all."""
        with self._changed:
            while self.jobs:
                job = min(self.jobs.values(), key=lambda job: job.due_ns)
                wait = job.due_ns - time.monotonic_ns()
                if wait <= 0:
                    return job
                self._changed.wait(wait / 1e9)
            self._thread = None
            return None
