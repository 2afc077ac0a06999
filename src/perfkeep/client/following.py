"""Follows a recording: what is new in its rings, again and again, for one reader of many.

Each reader keeps its own place and its own count of what was overwritten before it came. Whoever
may control the recording maps its rings and reads them without asking anybody, also while the
broker is away; whoever may only read is given copies.
"""

from __future__ import annotations

import errno
import io
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Literal

from perfkeep import records
from perfkeep.abi.perf_event import DATA_HEAD_OFFSET, Attr, ClockId, Flag
from perfkeep.analysis.data import Data
from perfkeep.analysis.symbolize import Images
from perfkeep.client.connection import Connection, again
from perfkeep.client.data_set import data_set, kallsyms
from perfkeep.client.event import reopen
from perfkeep.client.snapshot import Context, begin
from perfkeep.errors import BrokerError
from perfkeep.formats.perf_data import RingCopy, Window, parse, write_snapshot
from perfkeep.formats.perf_data.coverage import Clock, first_where, valid_part
from perfkeep.wire import messages
from perfkeep.wire.spill import pieces

_HEAD = struct.Struct("=Q")
_MASK64 = (1 << 64) - 1
#: How often to ask whether a quiet recording is still there.
_ASK_EVERY_S = 1.0
#: Files whose symbols a reader keeps from one look to the next.
_MOST_IMAGES = 256


class Place:
    """How far one ring has been read.

    Attributes:
        last: data_head then.
        lost_bytes: what was overwritten before it was read.
        late: records that have been read, and are for the next time.
        reach: how far back the first read goes, in bytes. A forward ring has no record boundary to
            begin at but its oldest, and is read whole.
    """

    def __init__(self, cpu: int, size: int, backward: bool, reach: int | None = None) -> None:
        self.cpu = cpu
        self.size = size
        self.backward = backward
        self.reach = reach if backward else None
        self.last = 0
        self.lost_bytes = 0
        self.late = b""

    def new(self, head: int) -> int:
        """Bytes that can still be had of what came since; moves on to there."""
        came = (self.last - head if self.backward else head - self.last) & _MASK64
        self.last = head
        if self.reach is not None:
            came, self.reach = min(came, self.reach), None
        self.lost_bytes += max(0, came - self.size)
        return min(came, self.size)


class _Mapped:
    """A ring that this process has mapped."""

    def __init__(self, place: Place, event: int, system: bool) -> None:
        with reopen(event, place.cpu, system=system) as opened:
            self._mapping = opened.mmap(place.size)
        self.place = place

    def head(self) -> int:
        found: int = _HEAD.unpack_from(self._mapping, DATA_HEAD_OFFSET)[0]
        return found

    def read(self) -> tuple[bytes, int, int]:
        """What is new, and data_head before and after it was read."""
        place, head = self.place, self.head()
        data = b"".join(
            self._mapping[mmap.PAGESIZE + start : mmap.PAGESIZE + end]
            for start, end in pieces(head, place.new(head), place.size, place.backward)
        )
        return data, head, self.head()

    def close(self) -> None:
        self._mapping.close()


class Follower:
    """One reader of one recording.

    Samples come in the order of time, also from one `poll` to the next: what is newer than the
    moment at which a poll began is kept for the next one, as other CPUs may still have older ones.

    Attributes:
        name: the recording's.
        places: by CPU.
        ended: the recording is over.
    """

    def __init__(self, name: str, *, system: bool = False, reach: int | None = None) -> None:
        """Begins with what the rings hold.

        Args:
            reach: begin with the newest records only, of about so many bytes of each flight ring.

        Raises:
            BrokerError: ENOENT: there is none · EACCES: not yours to read.
        """
        self.name = name
        self._system = system
        self._reach = reach
        self.places: dict[int, Place] = {}
        self.ended = False
        self._asks_at = 0.0
        self._mapped: dict[int, _Mapped] = {}
        self._kallsyms: Callable[[], bytes] = cache(kallsyms)
        self._images: Images = {}
        # Whoever may not look is told so now.
        connection, begun, told = again(lambda: begin(name, system))
        connection.close()
        self._id = begun.recording.id
        self._known = begun, told
        self._take_up(begun)
        self._reach = None  # of a CPU that comes later, all is new

    @property
    def overwrites(self) -> bool:
        """False: the rings are those of an adopted reader, and stop when they are full."""
        return self._known[0].recording.ring.overwrites

    @property
    def lost_bytes(self) -> int:
        """Of records that were overwritten before this reader came to them."""
        return sum(place.lost_bytes for place in self.places.values())

    def _take_up(self, begun: messages.Snapshot) -> None:
        """Find the rings that are new: at first all, later those of CPUs that came."""
        info = begun.recording
        for cpu in begun.cpus:
            if cpu in self.places:
                continue
            backward = info.ring.kind == "backward"
            place = Place(cpu, info.ring.bytes_per_cpu, backward, self._reach)
            self.places[cpu] = place
            event = next((one.id for one in info.events if cpu in one.cpus), None)
            if event is None:
                continue
            try:
                self._mapped[cpu] = _Mapped(place, event, self._system)
            except BrokerError as error:
                # No permission to control it, or an event of each thread: copies of the ring serve.
                if error.errno not in (errno.EACCES, errno.EINVAL):
                    raise

    def _anything(self) -> bool:
        """Whether there is something new, as far as can be told without asking."""
        if len(self._mapped) < len(self.places) or any(one.late for one in self.places.values()):
            return True
        return any(one.head() != one.place.last for one in self._mapped.values())

    def poll(self) -> Data | None:
        """What is new since the last time; None: nothing.

        Raises:
            Unreachable: the broker is away; what came meanwhile is there the next time.
        """
        now = time.monotonic()
        if self.ended or (now < self._asks_at and not self._anything()):
            return None
        self._asks_at = now + _ASK_EVERY_S
        try:
            connection, begun, told = again(lambda: begin(self.name, self._system))
        except BrokerError as error:
            if error.errno != errno.ENOENT:
                raise
            return self._last()
        with connection:
            if begun.recording.id != self._id:  # another one has its name by now
                return self._last()
            self._take_up(begun)
            self._known = begun, told
            until = time.clock_gettime_ns(time.CLOCK_MONOTONIC) if _is_monotonic(begun) else None
            read = [
                (self.places[cpu], self._read(connection, index, cpu))
                for index, cpu in enumerate(begun.cpus)
            ]
        return self._tables(read, until)

    def _last(self) -> Data | None:
        """It is over: what had been written to the rings that we have."""
        self.ended = True
        return self._tables([(one.place, one.read()) for one in self._mapped.values()], None)

    def _tables(
        self, read: list[tuple[Place, tuple[bytes, int, int]]], until: int | None
    ) -> Data | None:
        begun, told = self._known
        about = Context(begun, told)
        clock = Clock(about.events)
        rings = [
            _straight(place, kept)
            for place, (data, before, after) in read
            if (kept := self._keep(place, data, before, after, about.longest, clock, until))
        ]
        if not rings:
            return None
        if len(self._images) > _MOST_IMAGES:
            self._images.clear()
        out = io.BytesIO()
        write_snapshot(out, about.events, rings, about.host(), Window(), list(sys.argv), told)
        return data_set(parse(memoryview(out.getvalue())), self._kallsyms, self._images)

    def _read(self, connection: Connection, index: int, cpu: int) -> tuple[bytes, int, int]:
        if cpu in self._mapped:
            return self._mapped[cpu].read()
        copied, fds = connection.call("CopyRing", messages.CopyRing(index), messages.RingCopied)
        place = self.places[cpu]
        with fds[0] as fd:
            length = place.new(copied.head_before)
            # What is new lies at its beginning, or at its end.
            offset = 0 if place.backward else copied.bytes - length
            data = os.pread(fd.fileno(), length, offset)
        return data, copied.head_before, copied.head_after

    @staticmethod
    def _keep(
        place: Place, data: bytes, before: int, after: int, longest: int, clock: Clock,
        until: int | None,
    ) -> bytes:  # fmt: skip
        """What of it is whole and not too new; the rest is lost, or late."""
        copy = RingCopy(
            place.cpu, memoryview(data), before, after, _kind(place), place.size, longest
        )
        start, limit, _ = valid_part(copy, clock)
        place.lost_bytes += len(data) - (limit - start)
        whole = data[start:limit] + place.late if place.backward else place.late + data[start:limit]
        chain = records.walk(whole, 0, len(whole))
        place.lost_bytes += len(whole) - chain.end
        whole, place.late = whole[: chain.end], b""
        if until is None or not clock.known:
            return whole

        def is_late(ns: int) -> bool:
            return ns > until

        view = memoryview(whole)
        if place.backward:
            at = first_where(view, chain.marks, chain.end, lambda ns: not is_late(ns), clock)
            place.late = whole[:at]
            return whole[at:]
        at = first_where(view, chain.marks, chain.end, is_late, clock)
        place.late = whole[at:]
        return whole[:at]

    def close(self) -> None:
        for one in self._mapped.values():
            one.close()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _kind(place: Place) -> Literal["backward", "forward"]:
    return "backward" if place.backward else "forward"


def _straight(place: Place, data: bytes) -> RingCopy:
    """Records that are known to be whole, as a ring that has not wrapped."""
    head = -len(data) & _MASK64 if place.backward else len(data)
    size = 2 * len(data)
    return RingCopy(place.cpu, memoryview(data), head, head, _kind(place), size, 0)


def _is_monotonic(begun: messages.Snapshot) -> bool:
    """Whether all of its events tell the time by CLOCK_MONOTONIC."""
    attrs = [Attr.unpack(kind.kind.attr) for kind in begun.kinds]
    return all(
        attr.flags & Flag.USE_CLOCKID and attr.clockid == ClockId.MONOTONIC for attr in attrs
    )
