"""From the crash copy of rings on disk to a perf.data file, after both daemons or the machine died."""

from __future__ import annotations

import errno
import mmap
import os
import re
import sys
import zlib
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import BinaryIO

from perfkeep.broker.processes import Processes
from perfkeep.client.aside import AsideFile
from perfkeep.client.sideband import described
from perfkeep.client.snapshot import Snapshot, describe, gaps_in, max_record
from perfkeep.errors import DataError, PerfkeepError
from perfkeep.formats.perf_data import Coverage, RingCopy, Window, write_snapshot
from perfkeep.kernel import procfs, sysctl
from perfkeep.wire import spill
from perfkeep.wire.spill import Meta, RingState

_RING = re.compile(r"ring\.(\d{1,5})")
_BEFORE = re.compile(r"before-\d{1,9}")


@dataclass(frozen=True, slots=True)
class Spilled:
    """One crash copy.

    Attributes:
        name: "" for the newest in the directory, "before-1" for an older one.
        rings: state by CPU; those that cannot be read are missing, and `problems` tells why.
        told: what the sideband told of processes, as it came; nothing, if it cannot be read.
    """

    directory: str
    name: str
    meta: Meta
    rings: dict[int, RingState]
    problems: list[str]
    told: bytes = b""

    @property
    def last_ns(self) -> int:
        """When it was written last, CLOCK_REALTIME; 0: never."""
        return max((one.slot.realtime_ns for one in self.rings.values()), default=0)


def look(directory: str, name: str = "") -> Spilled:
    """What there is in a directory, or in one of those put aside in it.

    Raises:
        DataError: it holds no crash copy.
        OSError: it cannot be read.
    """
    folder = os.path.join(directory, name) if name else directory
    try:
        with open(os.path.join(folder, "meta"), "rb") as file:
            _, meta = spill.parse_meta(file.read())
    except FileNotFoundError:
        if not os.path.isdir(folder):
            raise PerfkeepError(errno.ENOENT, f"there is no directory {folder}") from None
        raise DataError(f"{folder} holds no crash copy of rings", 0, errno.ENOENT) from None
    except DataError as error:
        raise DataError(f"{folder}/meta: {error}", error.offset) from error
    rings: dict[int, RingState] = {}
    problems = []
    for entry in sorted(os.listdir(folder)):
        found = _RING.fullmatch(entry)
        if found is None:
            continue
        path = os.path.join(folder, entry)
        try:
            with open(path, "rb") as file:
                state = spill.ring_state(file.read(spill.PAGE))
                if os.fstat(file.fileno()).st_size < spill.ring_file_bytes(state.slot.ring_bytes):
                    raise DataError("it was cut short", spill.PAGE)
            rings[int(found[1])] = state
        except DataError as error:
            problems.append(f"{path}: {error}")
    told = b""
    try:
        told = _told(os.path.join(folder, "told"))
    except FileNotFoundError:
        pass  # of a version that wrote none
    except DataError as error:
        problems.append(f"{folder}/told: {error}")
    return Spilled(directory, name, meta, rings, problems, told)


def _told(path: str) -> bytes:
    """What the log says, and what had not been read yet where the disk has all of it."""
    with open(path, "rb") as file:
        slot = spill.told_slot(file.read(spill.PAGE))
        if slot is None:
            return b""
        area = spill.told_area(os.fstat(file.fileno()).st_size)
        if slot.logged + slot.unread > area:
            raise DataError("it was cut short", spill.PAGE)
        file.seek(spill.PAGE + slot.area * area)
        logged, unread = file.read(slot.logged), file.read(slot.unread)
    return logged + unread if zlib.crc32(unread) == slot.crc32 else logged


def look_at_all(directory: str) -> Iterator[Spilled]:
    """Every crash copy in a directory, the newest first.

    Raises:
        OSError: it cannot be read.
    """
    older = [name for name in os.listdir(directory) if _BEFORE.fullmatch(name)]
    for name in ["", *sorted(older, key=lambda name: -int(name.partition("-")[2]))]:
        try:
            yield look(directory, name)
        except DataError:
            continue  # a recording that was refused leaves an empty place


def recover(spilled: Spilled, path: str | None, clobber: bool = True) -> Snapshot:
    """A snapshot of what the rings held when they were spilled last.

    Args:
        path: the file, written aside and renamed; None keeps the data in memory.

    Raises:
        PerfkeepError: nothing was ever spilled; or the file cannot be written.
    """
    if not spilled.rings:
        raise PerfkeepError(
            errno.ENODATA,
            f"nothing in {spilled.directory} can be read: {'; '.join(spilled.problems)}",
        )
    info = spilled.meta.recording
    if path is None:
        data = os.fdopen(os.memfd_create("perfkeep-recovered", os.MFD_CLOEXEC), "w+b")
        try:
            coverage = _write(spilled, data)
            data.flush()
        except BaseException:
            data.close()
            raise
        return Snapshot(None, coverage, info, gaps_in(info, coverage, Window()), data)
    with AsideFile(path, clobber) as out:
        coverage = _write(spilled, out)
    return Snapshot(path, coverage, info, gaps_in(info, coverage, Window()), None)


def _write(spilled: Spilled, out: BinaryIO) -> Coverage:
    meta = spilled.meta
    events = [describe(kind) for kind in meta.kinds]
    longest = max_record(kind.kind for kind in meta.kinds)
    told = b""
    if meta.sideband is not None:
        events += described(meta.sideband)
        processes = Processes()
        processes.fold(spilled.told)
        told = b"".join(processes.records())
    with closing(_rings(spilled, longest)) as rings:
        host = _host(spilled)
        return write_snapshot(out, events, rings, host, Window(), list(sys.argv), told)


def _host(spilled: Spilled) -> procfs.Host:
    """The machine that it was: after another boot neither processes nor addresses are the same."""
    now = procfs.scan()
    if spilled.meta.boot_id == sysctl.boot_id():
        return now
    newest = max((one.slot for one in spilled.rings.values()), key=lambda slot: slot.monotonic_ns)
    return replace(
        now,
        boot_id=spilled.meta.boot_id,
        release="",
        kernel_text=0,
        kernel_notes=b"",
        processes=[],
        modules=[],
        monotonic_ns=newest.monotonic_ns,
        realtime_ns=newest.realtime_ns,
    )


def _rings(spilled: Spilled, longest: int) -> Generator[RingCopy, None, None]:
    folder = os.path.join(spilled.directory, spilled.name)
    for cpu, (slot, valid) in sorted(spilled.rings.items()):
        with ExitStack() as stack:
            file = stack.enter_context(open(os.path.join(folder, f"ring.{cpu}"), "rb"))
            mapping = stack.enter_context(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
            base = spill.PAGE + slot.area * slot.ring_bytes
            pieces = spill.pieces(slot.head, valid, slot.ring_bytes, slot.backward)
            data = b"".join(mapping[base + start : base + end] for start, end in pieces)
        written = (-slot.head if slot.backward else slot.head) & (1 << 64) - 1
        whole = valid == written
        yield RingCopy(
            cpu=cpu,
            data=memoryview(data),
            head_before=slot.head,
            head_after=slot.head,
            kind="backward" if slot.backward else "forward",
            # One that has wrapped begins in the middle of a record, as a full one does.
            size=max(slot.ring_bytes, valid + 4 * longest) if whole else max(1, valid),
            max_record=0,
        )
