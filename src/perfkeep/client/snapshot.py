"""Takes a snapshot: asks the broker for one ring after the other and writes perf.data.

The broker copies the next ring while this process writes the last one, and while it reads
/proc; so neither holds more than two copies, however many CPUs there are.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from perfkeep.abi.perf_event import Attr
from perfkeep.client.adopted import disabled_by_program
from perfkeep.client.aside import AsideFile
from perfkeep.client.clocks import ahead_ns
from perfkeep.client.connection import Connection, again
from perfkeep.client.pids import are_in_proc, shows_every_task
from perfkeep.client.sideband import described
from perfkeep.errors import PerfkeepError
from perfkeep.formats.perf_data import Coverage, EventDesc, RingCopy, Window, write_snapshot
from perfkeep.formats.perf_data.coverage import Clock, cut
from perfkeep.formats.perf_data.told import without_mappings
from perfkeep.kernel import procfs
from perfkeep.kernel.sysctl import most_frames
from perfkeep.records import unseen
from perfkeep.records.bound import longest
from perfkeep.units import parse_duration
from perfkeep.wire import instance, messages
from perfkeep.wire.messages import CopyRing, Named, RecordingInfo, RingCopied

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data
    from perfkeep.formats.arrow import ArrowTable

Progress = Callable[[int, int], None]


class Snapshot:
    """A perf.data file and what it covers.

    Attributes:
        path: the file, or None: the data is in memory until it is saved.
        coverage: per CPU the first and last time, what was overwritten, lost or throttled, and
            whether the asked-for span was reached.
        recording: what the recording was at the time.
        gaps: when nothing was recorded, within the span that was asked for.
        complete: whether it has all that was asked for.
        ahead_ns: how far the recording's clock was ahead of CLOCK_MONOTONIC; None: unknown.
    """

    def __init__(
        self,
        path: str | None,
        coverage: Coverage,
        recording: RecordingInfo,
        gaps: list[messages.Gap],
        data: BinaryIO | None,
        ahead_ns: int | None = 0,
    ) -> None:
        self.path = path
        self.ahead_ns = ahead_ns
        self.coverage = coverage
        self.recording = recording
        self.gaps = gaps
        self.complete = coverage.complete and not gaps
        self._data = data

    def open(self) -> BinaryIO:
        """The perf.data bytes, for reading from their beginning; the caller closes it."""
        if self._data is None:
            assert self.path is not None
            return open(self.path, "rb")
        return open(f"/proc/self/fd/{self._data.fileno()}", "rb")

    def tables(self) -> Data:
        """The contents, as perfkeep.read returns them for a file; needs the extra `analysis`."""
        from perfkeep.extras import needed
        from perfkeep.formats.perf_data import parse

        with needed():
            from perfkeep.client.data_set import data_set, read

        if self.path is not None:
            return read(self.path)
        with self.open() as file:
            return data_set(parse(memoryview(file.read())))

    def to_arrow(self, name: str | None = None) -> ArrowTable | dict[str, ArrowTable]:
        """See analysis.data.Data."""
        return self.tables().to_arrow(name)

    def to_pandas(self, name: str) -> Any:
        """One table as a pandas.DataFrame."""
        return self.tables().to_pandas(name)

    def to_polars(self, name: str) -> Any:
        """One table as a polars.DataFrame."""
        return self.tables().to_polars(name)

    def sql(self, query: str) -> Any:
        """What DuckDB says; for several questions take `tables()` once."""
        return self.tables().sql(query)

    def save(self, path: str, clobber: bool = True) -> None:
        """Write a copy, aside first and then renamed."""
        with self.open() as source, AsideFile(path, clobber) as target:
            shutil.copyfileobj(source, target, 1 << 20)

    def close(self) -> None:
        """Free the memory of a snapshot that has no path."""
        if self._data is not None:
            self._data.close()

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def gaps_in(
    recording: RecordingInfo, coverage: Coverage, window: Window, ahead_ns: int | None = 0
) -> list[messages.Gap]:
    """The gaps that reach into what was asked for: the window, or all that the rings hold. Rings
    that have not wrapped since a gap hold nothing older only because of it.

    Args:
        window: in ns of CLOCK_MONOTONIC.
        ahead_ns: how far the recording's clock is ahead of that; None: unknown.
    """
    ahead = time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    begin, end, first = 0, time.time_ns(), coverage.first_ns
    if window.since_ns is not None:
        begin = window.since_ns + ahead
    elif first is not None and ahead_ns is not None and all(cpu.wrapped for cpu in coverage.cpus):
        begin = first - ahead_ns + ahead
    if window.until_ns is not None:
        end = window.until_ns + ahead
    return [
        gap
        for gap in recording.gaps
        if gap.since_ns < end and (gap.until_ns is None or gap.until_ns > begin)
    ]


def take(
    name: str,
    path: str | None,
    *,
    last: str | float | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    clobber: bool = True,
    progress: Progress | None = None,
    system: bool = False,
) -> Snapshot:
    """See Recording.snapshot. `progress` is told (rings done, rings in all)."""
    if last is not None:
        since_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - parse_duration(last)
    window = Window(since_ns, until_ns)
    if path is not None:
        with AsideFile(path, clobber) as out:
            coverage, info, ahead = _write(name, out, window, progress, system)
        return Snapshot(
            path, coverage, info, _gaps(info, coverage, window, ahead, system), None, ahead
        )
    data = os.fdopen(os.memfd_create("perfkeep-snapshot", os.MFD_CLOEXEC), "w+b")
    try:
        coverage, info, ahead = _write(name, data, window, progress, system)
        data.flush()
    except BaseException:
        data.close()
        raise
    return Snapshot(None, coverage, info, _gaps(info, coverage, window, ahead, system), data, ahead)


def _gaps(
    recording: RecordingInfo, coverage: Coverage, window: Window, ahead_ns: int | None, system: bool
) -> list[messages.Gap]:
    """Its gaps; one more if its events do not count now, since the newest record at the latest."""
    gaps = gaps_in(recording, coverage, window, ahead_ns)
    disabled = disabled_by_program(recording, system)
    if disabled and window.until_ns is None:
        ahead = time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        since = recording.created_ns
        if coverage.last_ns is not None and ahead_ns is not None:
            since = coverage.last_ns - ahead_ns + ahead
        elif window.since_ns is not None:
            since = window.since_ns + ahead
        gaps.append(messages.Gap(since, None, disabled))
    return gaps


def _write(
    name: str, out: BinaryIO, window: Window, progress: Progress | None, system: bool
) -> tuple[Coverage, RecordingInfo, int | None]:
    """Gives what the snapshot covers, what was recorded, and `ahead_ns` of its clock."""
    connection, begun, told = again(lambda: begin(name, system))
    with connection:
        if begun.cpus:
            connection.send("CopyRing", CopyRing(0))  # on its way while we read /proc
        ahead = ahead_ns(Attr.unpack(begun.kinds[0].kind.attr))
        about = Context(begun, told)
        host = about.host()
        with closing(_rings(connection, begun, about.longest, progress)) as rings:
            command = list(sys.argv)
            own_window = of_clock(window, ahead, name)
            coverage = write_snapshot(out, about.events, rings, host, own_window, command, told)
    return coverage, begun.recording, ahead


def throttled(name: str, system: bool = False) -> dict[tuple[int, int], int]:
    """See Recording.throttled."""
    connection, begun, _ = again(lambda: begin(name, system))
    events = [describe(kind) for kind in begun.kinds]
    longest = max_record(kind.kind for kind in begun.kinds)
    counts = {}
    with connection:
        if begun.cpus:
            connection.send("CopyRing", CopyRing(0))
        with closing(_rings(connection, begun, longest, None)) as rings:
            clock = Clock(events)
            for ring in rings:
                part, covered = cut(ring, Window(), clock)
                part.release()
                for number, count in covered.throttled.items():
                    counts[begun.kinds[number].id, ring.cpu] = count
    return counts


def of_clock(window: Window, ahead_ns: int | None, name: str) -> Window:
    """A window of CLOCK_MONOTONIC in the clock of a recording.

    Raises:
        PerfkeepError: EOPNOTSUPP: how the two relate cannot be found out.
    """
    if window == Window():
        return window
    if ahead_ns is None:
        raise PerfkeepError(
            errno.EOPNOTSUPP,
            f"the times of {name!r} are of a clock that this user cannot read, so no span of it can "
            "be selected",
            hint=f"perfkeep snapshot {name}",
        )
    return Window(
        *(None if ns is None else ns + ahead_ns for ns in (window.since_ns, window.until_ns))
    )


class Context:
    """What a file says beside the rings.

    Args:
        told: records of the sideband.

    Attributes:
        longest: no record of these events has more bytes.
    """

    def __init__(self, begun: messages.Snapshot, told: bytes) -> None:
        self.events = [describe(kind) for kind in begun.kinds]
        self.longest = max_record(kind.kind for kind in begun.kinds)
        self._target = begun.recording.target
        self._wanted: set[int] | None = None if are_in_proc(self._target) else set()
        if begun.sideband is not None:
            self.events += described(begun.sideband.event)
            if (
                begun.sideband.complete and self._wanted is None
            ):  # who is known need not be looked for
                self._wanted = without_mappings(memoryview(told))

    def host(self) -> procfs.Host:
        host = procfs.scan(self._wanted)
        if not shows_every_task(self._target):
            host.processes.append(procfs.Process(0, {0: unseen.NAME.encode()}, []))
        return host


def begin(name: str, system: bool = False) -> tuple[Connection, messages.Snapshot, bytes]:
    """A connection on which copies of the rings can be asked for, what there is, and what the
    sideband told.

    Args:
        system: of root's instance.

    Raises:
        BrokerError: ENOENT: no such recording · EACCES: not yours to read.
    """
    connection = Connection(instance.current(system))
    try:
        begun, fds = connection.call("BeginSnapshot", Named(name), messages.Snapshot)
        told = b""
        if begun.sideband is not None:
            with fds[0] as fd:
                told = os.pread(fd.fileno(), begun.sideband.bytes, 0)
        return connection, begun, told
    except BaseException:
        connection.close()
        raise


def describe(kind: messages.KindInSnapshot) -> EventDesc:
    """A kind of event as perf.data describes it."""
    found = kind.kind.tracepoint
    tracepoint = (found.system, found.name, found.id, found.format) if found else None
    return EventDesc(kind.kind.name, Attr.unpack(kind.kind.attr), kind.kernel_ids, tracepoint)


def _rings(
    connection: Connection, begun: messages.Snapshot, bound: int, progress: Progress | None
) -> Generator[RingCopy, None, None]:
    """The copies in order, each valid until the next is asked for."""
    ring, count = begun.recording.ring, len(begun.cpus)
    for index in range(count):
        copied, fds = connection.receive(RingCopied)
        if index + 1 < count:
            connection.send("CopyRing", CopyRing(index + 1))
        with fds[0] as fd, _mapped(fd.fileno(), copied.bytes) as data:
            yield RingCopy(
                cpu=copied.cpu,
                data=data,
                head_before=copied.head_before,
                head_after=copied.head_after,
                kind=ring.kind,
                size=ring.bytes_per_cpu,
                max_record=bound,
                unread=copied.unread,
                counted_lost=begun.lost[index] if begun.lost else None,
            )
        if progress is not None:
            progress(index + 1, count)


@contextmanager
def _mapped(fd: int, length: int) -> Iterator[memoryview]:
    if not length:
        yield memoryview(b"")
        return
    flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
    with mmap.mmap(fd, length, flags, mmap.PROT_READ) as mapping, memoryview(mapping) as data:
        yield data


def max_record(kinds: Iterable[messages.Kind]) -> int:
    """No record of these has more bytes: bounds what was being written during a copy."""
    frames = most_frames()
    return max((_longest(kind, frames) for kind in kinds), default=0)


def _longest(kind: messages.Kind, frames: int) -> int:
    format = kind.tracepoint.format if kind.tracepoint else ""
    return longest(Attr.unpack(kind.attr), format, frames)
