"""What of a ring's copy is valid, what of that was asked for, and how to say what is missing.

             backward: newest → oldest
├──────────── valid ────────────┤ being written │ overwritten │
0                               └── margin ─────┴─ heads ─────┤ size

             forward: oldest → newest
│ overwritten │ being written ├──────────── valid ────────────┤
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from perfkeep import records
from perfkeep.abi.perf_event import Flag, Sample
from perfkeep.abi.records import sample_id_at, trailer_id_at
from perfkeep.formats.perf_data.event import EventDesc
from perfkeep.records.bound import spoilt_bytes
from perfkeep.records.pure import Walk
from perfkeep.records.throttle import Throttled, by_name, sentences, throttled
from perfkeep.records.writers import Writers

_HEADER = struct.Struct("=IHH")
_WORD = struct.Struct("=Q")
_MASK64 = (1 << 64) - 1
# What the u16 of a record's header can say.
_LONGEST = 0xFFFF


@dataclass(frozen=True, slots=True)
class RingCopy:
    """A copy of one ring in one piece; see broker.rings.

    Attributes:
        head_before, head_after: data_head before and after the copy was made.
        size: of the ring, in bytes; `data` is shorter when less was written so far.
        max_record: no record is longer.
        unread: of a ring that does not overwrite, the newest bytes that its reader has not consumed;
            None: it overwrites.
        counted_lost: records that such a ring had no room for, by the kernel's counters; None: the
            events do not count them.
    """

    cpu: int
    data: memoryview
    head_before: int
    head_after: int
    kind: Literal["backward", "forward"]
    size: int
    max_record: int
    unread: int | None = None
    counted_lost: int | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """The span that was asked for, in ns of the recording's clock; None is open."""

    since_ns: int | None = None
    until_ns: int | None = None


@dataclass(slots=True)
class CpuCoverage:
    """What a snapshot holds of one CPU.

    Attributes:
        first_ns, last_ns: times of the oldest and the newest record, None without any.
        bytes: of records.
        overwritten: bytes that were overwritten while they were copied.
        lost: records that the kernel had no room for, by its LOST records, and where the ring stopped
            by its counters.
        reached: whether everything in the asked-for span is there.
        wrapped: whether the ring was full, so that it may have held older records before.
        stopped: whether the ring does not overwrite and has no room: what came later is lost.
        throttled: how often the kernel stopped an event until the next tick, because it sampled too
            often, by the event's number in the file; 0 is left out.
    """

    cpu: int
    first_ns: int | None = None
    last_ns: int | None = None
    records: int = 0
    bytes: int = 0
    overwritten: int = 0
    lost: int = 0
    reached: bool = True
    wrapped: bool = False
    stopped: bool = False
    throttled: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Coverage:
    """The coverage of a snapshot, per CPU.

    Attributes:
        names: of the events of the file.
    """

    cpus: list[CpuCoverage] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Nothing was lost, and every CPU reaches back as far as was asked for."""
        return all(cpu.reached and not cpu.lost for cpu in self.cpus)

    @property
    def throttled(self) -> dict[tuple[str, int], int]:
        """The number of times the kernel stopped an event until the next tick, because it sampled too
        often: by the event's name and the CPU.
        """
        return by_name(self._throttled, self.names)

    @property
    def _throttled(self) -> Throttled:
        return Counter(
            {
                (number, cpu.cpu): count
                for cpu in self.cpus
                for number, count in cpu.throttled.items()
            }
        )

    def remarks(self) -> list[str]:
        """Remarks that readers of its samples need to know, a sentence each."""
        return sentences(self._throttled, self.names)

    @property
    def first_ns(self) -> int | None:
        return min((cpu.first_ns for cpu in self.cpus if cpu.first_ns is not None), default=None)

    @property
    def last_ns(self) -> int | None:
        return max((cpu.last_ns for cpu in self.cpus if cpu.last_ns is not None), default=None)


class Clock:
    """Reads the time of a record, whichever of the events wrote it."""

    def __init__(self, events: Sequence[EventDesc]) -> None:
        self._writers = Writers((event.attr, event.all_ids) for event in events)
        ids = sorted(id for event in events for id in event.all_ids)
        attrs = [event.attr for event in events]
        places = {
            (sample_id_at(attr.sample_type), trailer_id_at(attr.sample_type)) for attr in attrs
        }
        one_place = len(places) == 1 and all(attr.flags & Flag.SAMPLE_ID_ALL for attr in attrs)
        self._id_at, self._trailer_id_at = places.pop() if one_place else (None, None)
        #: Whether records say when they were written; a window means nothing otherwise.
        self.known = all(event.attr.sample_type & Sample.TIME for event in events)
        #: Sorted words for records.first_chained; empty when not all records carry an id.
        self._ids = b"".join(map(_WORD.pack, ids)) if self._id_at is not None else b""

    def time(self, data: memoryview, at: int) -> int | None:
        size = _HEADER.unpack_from(data, at)[2]
        record = data[at : at + size]
        layout = self._writers.layout(record)
        return layout.time(record) if layout else None

    def throttled(self, data: memoryview, chain: Walk) -> dict[int, int]:
        """Count how often each event was throttled in a chain of records, by its number."""
        counts: dict[int, int] = {}
        stopped = (data[at : at + _HEADER.unpack_from(data, at)[2]] for at in chain.throttles)
        for (number, _), count in throttled(stopped, self._writers).items():
            counts[number] = counts.get(number, 0) + count
        return counts

    def first_record(self, data: memoryview, start: int) -> int:
        """Offset of the first record of a forward ring that has wrapped, see records.first_chained."""
        back = -(self._trailer_id_at or 0)
        return records.first_chained(data, start, self._ids, self._id_at or 0, back)


def valid_part(ring: RingCopy, clock: Clock) -> tuple[int, int, int]:
    """(start, end, overwritten bytes) of what can be trusted in a copy."""
    moved = (
        ring.head_before - ring.head_after
        if ring.kind == "backward"
        else (ring.head_after - ring.head_before)
    )
    moved &= _MASK64
    length = len(ring.data)
    free = ring.size - length
    # Room that was never written takes what comes first.
    spoilt = spoilt_bytes(length, moved - free, ring.max_record, ring.unread)
    overwritten = min(spoilt, max(0, moved - free))
    if ring.kind == "backward":
        return 0, length - spoilt, overwritten
    if not spoilt and free != 0:
        return 0, length, overwritten
    return clock.first_record(ring.data, spoilt), length, overwritten


def first_where(
    data: memoryview, marks: list[int], end: int, holds: Callable[[int], bool], clock: Clock
) -> int:
    """Offset of the first record for whose time `holds`; it holds for all behind that, too."""

    def at(offset: int) -> bool:
        time = clock.time(data, offset)
        return time is not None and holds(time)

    place = bisect_left(marks, True, key=at)
    offset = marks[place - 1] if place else (marks[0] if marks else end)
    while offset < end and not at(offset):
        offset += _HEADER.unpack_from(data, offset)[2]
    return offset


def _last_record(data: memoryview, marks: list[int], end: int) -> int:
    offset = marks[-1]
    while (behind := offset + _HEADER.unpack_from(data, offset)[2]) < end:
        offset = behind
    return offset


def _oldest_and_newest(ring: RingCopy, start: int, chain: Walk) -> tuple[int, int]:
    """Offsets of a chain's two ends; it has at least one record."""
    last = _last_record(ring.data, chain.marks, chain.end)
    return (last, start) if ring.kind == "backward" else (start, last)


def _reaches(
    ring: RingCopy, start: int, limit: int, chain: Walk, since: int | None, clock: Clock
) -> bool:
    """Whether everything since then is there; or, when it was not said, what a ring can hold."""
    whole = len(ring.data) < ring.size and limit == len(ring.data)
    # Where old records were overwritten, the last of the chain may be a torn one. Elsewhere, or
    # with more than a record left over, the chain broke off.
    broken = limit - chain.end > (0 if whole else _LONGEST)
    if whole and not broken:
        return True
    if since is None or not chain.records:
        return bool(chain.records) and not broken
    oldest = clock.time(ring.data, _oldest_and_newest(ring, start, chain)[0])
    return oldest is not None and oldest <= since


def _missing_behind(
    ring: RingCopy, start: int, chain: Walk, window: Window, clock: Clock
) -> int | None:
    """Count the records behind the newest one that the kernel had no room for; None: perhaps some.

    The kernel writes a LOST record when there is room again. Until then only its counters have them:
    those of all events since they were opened, less what LOST records say.
    """
    if ring.unread is None:
        return 0
    if window.until_ns is not None and chain.records:
        newest = clock.time(ring.data, _oldest_and_newest(ring, start, chain)[1])
        if newest is not None and newest >= window.until_ns:
            return 0
    head = (-ring.head_before if ring.kind == "backward" else ring.head_before) & _MASK64
    full = ring.size - ring.unread < ring.max_record
    if ring.counted_lost is None:
        return None if full else 0
    # Once its reader has consumed anything, LOST records may have been overwritten since.
    return max(0, ring.counted_lost - chain.lost) if full or ring.unread == head else 0


def _inside(
    ring: RingCopy, start: int, chain: Walk, window: Window, clock: Clock
) -> tuple[int, int]:
    """(start, end) of the part of a chain that lies in the window."""
    end, (since, until) = chain.end, (window.since_ns, window.until_ns)

    def first(holds: Callable[[int], bool]) -> int:
        return first_where(ring.data, chain.marks, chain.end, holds, clock)

    backward = ring.kind == "backward"
    if until is not None:
        late = until
        if backward:
            start = first(lambda time: time <= late)
        else:
            end = first(lambda time: time > late)
    if since is not None:
        early = since
        if backward:
            end = first(lambda time: time < early)
        else:
            start = first(lambda time: time >= early)
    return start, max(start, end)


def cut(ring: RingCopy, window: Window, clock: Clock) -> tuple[memoryview, CpuCoverage]:
    """The records of a copy that lie in the window, and what they cover.

    Without times everything is kept, and a wrapped ring does not reach what was asked for.
    """
    start, limit, overwritten = valid_part(ring, clock)
    chain = records.walk(ring.data, start, limit)
    covered = CpuCoverage(ring.cpu, overwritten=overwritten)
    covered.wrapped = len(ring.data) == ring.size
    covered.reached = _reaches(ring, start, limit, chain, window.since_ns, clock)
    missing = _missing_behind(ring, start, chain, window, clock)
    if clock.known and window != Window():
        start, end = _inside(ring, start, chain, window, clock)
        chain = records.walk(ring.data, start, end)
    covered.stopped = missing is None or missing > 0
    covered.reached &= not covered.stopped
    covered.lost = chain.lost + (missing or 0)
    covered.throttled = clock.throttled(ring.data, chain)
    covered.records, covered.bytes = chain.records, chain.end - start
    if chain.records:
        oldest, newest = _oldest_and_newest(ring, start, chain)
        covered.first_ns = clock.time(ring.data, oldest)
        covered.last_ns = clock.time(ring.data, newest)
    return ring.data[start : chain.end], covered
