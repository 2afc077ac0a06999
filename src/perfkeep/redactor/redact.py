"""Take out of a copy what guests may not see: the kernel's addresses, and what programs had in their
registers and on their stacks. Pure.

Every 8-byte value from 0xff00000000000000 on is taken for one: the kernel's half of the address
space begins there or above it, on x86_64 and aarch64, whatever the depth of their page tables. What
is left alone are the 4096 highest, which are small negative numbers and PERF_CONTEXT_* marks, and a
pid beside a tid of -1 where a record may have these. It is replaced by 0, as the kernel does it, so no record changes its size.

    samples, all fields but       every word; counts (READ) stay as they are
    READ and RAW
    RAW with a known format       every field of 8 bytes, arrays of such; at every byte of other
                                  arrays and of what lies behind the last field, where strings and
                                  arrays of any length are; what no field covers, and what lies
                                  behind the text in an array of char, is 0
    RAW without, records of       at every byte
    unknown events
    registers, copies of stacks,  all of it is 0
    physical addresses, AUX
    other records                 every word; of TEXT_POKE all of the code
    what is no chain of records   all of it is 0

What was overwritten, or was being written, while the ring was copied is 0 as well: a record of which
only the beginning is left says nothing of what follows. Readers cut as much off, see
formats.perf_data.coverage.

     backward  ├──── walked ────┤ longest × 4 │ overwritten │
     forward   │ overwritten │ longest × 4 │ to the first chain ├─ any byte ─┼──── walked ────┤

The oldest records of a forward ring may be no records: what looks like one may lie in the rest of a
longer one. As far as that could reach they are looked at at every byte.

Where any event of the recording has registers or stacks, what cannot be told from them is 0 as well:
samples of unknown events, what lies behind the end of a sample, and the oldest records of a forward
ring.

It is better to take a number too many than an address too few.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from perfkeep import records
from perfkeep.abi.perf_event import Attr
from perfkeep.abi.records import HEADER_SIZE, Record
from perfkeep.records.bound import longest, spoilt_bytes
from perfkeep.redactor.fields import (
    BEYOND,
    DEAD,
    DEAD_END,
    LOWEST,
    Shape,
    scan,
)

_HEADER = struct.Struct("=IHH")
_WORD = struct.Struct("=Q")
_SIZE = struct.Struct("=I")
_TWO = struct.Struct("=HH")
# Records are looked at so many bytes at a time: Python's numbers are larger than the kernel's.
_CHUNK = 1 << 20
# Behind its header, a record this long looks like an address itself.
_LONG = 0xFF00
# perf_event_max_stack and perf_event_max_contexts_per_stack, as the kernel has them.
_FRAMES = 127 + 8

#: What is no address though it may look like one: the offsets in records of a type.
_STAYS: dict[int, tuple[int, int]] = {
    Record.READ: (8, 1 << 16),  # counts
    Record.MMAP2: (40, 64),  # device, inode and protection, or the build id
    Record.BPF_EVENT: (16, 24),  # the program's tag
}
#: Records of words and text.
_PLAIN = {
    Record.MMAP, Record.LOST, Record.COMM, Record.EXIT, Record.THROTTLE, Record.UNTHROTTLE,
    Record.FORK, Record.AUX, Record.ITRACE_START, Record.LOST_SAMPLES, Record.SWITCH,
    Record.SWITCH_CPU_WIDE, Record.NAMESPACES, Record.KSYMBOL, Record.CGROUP,
    Record.AUX_OUTPUT_HW_ID, Record.CALLCHAIN_DEFERRED,
}  # fmt: skip


class Source(NamedTuple):
    """One kind of event whose records may be in a copy: its attr, the kernel's ids of its events,
    and for a tracepoint what tracefs says of its fields."""

    attr: bytes
    ids: Sequence[int]
    format: str


def redact(
    data: bytearray,
    backward: bool,
    sources: Iterable[Source],
    overwritten: int | None = None,
    frames: int = _FRAMES,
    unread: int | None = None,
) -> int:
    """Replace, in place. Gives the number of bytes that could not be understood and are 0 now, not
    counting those that no reader looks at.

    Args:
        data: as broker.rings copies it, in one piece.
        overwritten: how far data_head moved meanwhile, less what was free in the ring before; None:
            there was room enough.
        frames: the most that a call chain has.
        unread: so many of the newest bytes cannot have been overwritten; None: the ring overwrites.
    """
    return _Copy(data, list(sources), frames).redact(backward, overwritten, unread)


class _Copy:
    def __init__(self, data: bytearray, sources: list[Source], frames: int) -> None:
        self.data = data
        self.view = memoryview(data)
        self.words = self.view[: len(data) // 8 * 8].cast("Q")
        shapes = [Shape(Attr.unpack(one.attr), one.format) for one in sources]
        self.by_id = {id: shapes[at] for at, one in enumerate(sources) for id in one.ids}
        sample_places = {shape.id_at for shape in shapes}
        self.id_at = sample_places.pop() if len(sample_places) == 1 else None
        places = {shape.trailer_id_at for shape in shapes}
        self.trailer_id_at = places.pop() if len(places) == 1 else None
        #: True if anything here may be what a program had in registers or on a stack.
        self.private = any(shape.private or not shape.known for shape in shapes)
        # Samples without an id: only when there is one kind can they be told.
        self.only = shapes[0] if len(shapes) == 1 else None
        #: The earliest offset of registers and stacks in a sample that has another event's id,
        #: see formats.perf_data.mixed.
        self.earliest = min(
            (shape.variable for shape in shapes if shape.padded and shape.private), default=None
        )
        #: Sorted words, where every record has an id.
        self.ids = b""
        if self.id_at is not None and self.trailer_id_at is not None:
            self.ids = b"".join(map(_WORD.pack, sorted(self.by_id)))
        self.longest = max(
            (longest(Attr.unpack(one.attr), one.format, frames) for one in sources), default=0
        )
        #: Bytes that were not understood.
        self.blank = 0
        #: From here to the next thing that stays as it is every word is looked at.
        self.run = 0
        #: Where the records begin that are looked at.
        self.marks: Sequence[int] = ()

    def redact(self, backward: bool, overwritten: int | None, unread: int | None) -> int:
        data, length = self.data, len(self.data)
        spoilt, start, limit = 0, 0, length
        if overwritten is not None:
            spoilt = spoilt_bytes(length, overwritten, self.longest, unread)
        # A ring that was full, or became it: the oldest record is cut off somewhere.
        wrapped = overwritten is not None and overwritten >= 0
        if backward:
            limit -= spoilt
        elif spoilt or wrapped:
            start = records.first_chained(
                self.view, spoilt, self.ids, self.id_at or 0, -(self.trailer_id_at or 0)
            )
        if start and self.private:
            start = self._first_behind(start, spoilt + self.longest, limit)
        end = self._walk(start, limit)
        if start:
            for at in self._marks(start, min(end, spoilt + self.longest)):
                scan(data, at + HEADER_SIZE, at + _HEADER.unpack_from(data, at)[2])
        data[:start] = bytes(start)
        data[end:] = bytes(length - end)
        # One record at the oldest end may be cut off there.
        for left in (start - spoilt if start else 0, limit - end):
            if left > (self.longest if wrapped or spoilt else 0):
                self.blank += left
        return self.blank

    def _marks(self, start: int, end: int) -> list[int]:
        """Where the records begin that begin before `end`."""
        reach = min(end + (1 << 16), len(self.data))
        return [at for at in records.walk(self.view, start, reach, 1).marks if at < end]

    def _first_behind(self, start: int, least: int, limit: int) -> int:
        """The offset of the first record that cannot lie in a longer one."""
        marks = records.walk(self.view, start, limit, 1).marks
        return next((at for at in marks if at >= least), limit)

    def _walk(self, start: int, limit: int) -> int:
        """Every record from `start` on; gives the end of the last."""
        at = self.run = start
        while True:
            chain = records.walk(self.view, at, min(limit, at + _CHUNK), 1)
            if chain.end == at:
                return at
            self.marks = chain.marks
            for record, behind in zip(chain.marks, [*chain.marks[1:], chain.end], strict=True):
                self._record(record, behind)
            at = chain.end
            self._look(at)

    def _look(self, end: int) -> None:
        """At every word from `run` on."""
        some = self.words[self.run // 8 : end // 8]
        found = some.tolist()
        if found and max(found) >= LOWEST:
            first = self.run // 8
            some[:] = array(
                "Q",
                [
                    word
                    if word < LOWEST
                    or word >= BEYOND
                    or (DEAD <= word < DEAD_END and self._task(8 * (first + number)))
                    else 0
                    for number, word in enumerate(found)
                ],
            )
        self.run = end

    def _task(self, at: int) -> bool:
        """Whether a record may have a pid and a tid here: a sample has them in one place, and for
        example in a call chain anything may look like them.
        """
        record = self.marks[bisect_right(self.marks, at) - 1]
        type, _, size = _HEADER.unpack_from(self.data, record)
        if type != Record.SAMPLE:
            return True
        shape = self._shape(record, record + size)
        return shape is not None and shape.task_at == at - record

    def _stays(self, start: int, end: int) -> None:
        self._look(start)
        self.run = end

    def _record(self, at: int, behind: int) -> None:
        kind = self.words[at // 8] & 0xFFFFFFFF
        if behind - at >= _LONG:
            self._stays(at, at + HEADER_SIZE)
        if kind == Record.SAMPLE:
            shape = self._shape(at, behind)
            if shape is None and self.private:
                self._zero(at + HEADER_SIZE, behind)
            elif shape is None:
                scan(self.data, at + HEADER_SIZE, behind)
            elif not shape.plain:
                self._sample(shape, at, behind)
        elif kind in _STAYS:
            start, end = _STAYS[kind]
            if at + start < behind:
                self._stays(at + start, min(at + end, behind))
        elif kind == Record.TEXT_POKE:
            self._code(at, behind)
        elif kind not in _PLAIN:
            self._zero(at + HEADER_SIZE, max(at + HEADER_SIZE, behind - self._trailer(behind)))

    def _shape(self, at: int, behind: int) -> Shape | None:
        if self.id_at is None:
            return self.only  # None: there are several kinds
        place = at + self.id_at
        return self.by_id.get(self.words[place // 8]) if place + 8 <= behind else None

    def _trailer(self, behind: int) -> int:
        """What sample_id_all adds to a record that ends here; the time and the id count for the
        reader of a record of any type."""
        shape = self.only
        if self.trailer_id_at is not None:
            shape = self.by_id.get(self.words[(behind + self.trailer_id_at) // 8])
        return shape.trailer if shape is not None else 0

    def _code(self, at: int, behind: int) -> None:
        """TEXT_POKE: address, two lengths, old code and new."""
        if behind - at >= 24:
            old, new = _TWO.unpack_from(self.data, at + 16)
            end = max(min(at + 20 + old + new, behind), behind - self._trailer(behind))
            self.data[at + 20 : end] = bytes(max(0, end - at - 20))

    def _sample(self, shape: Shape, at: int, behind: int) -> None:
        place = at + shape.variable
        if not shape.known or place > behind:
            self._zero(min(place, behind), behind)
            return
        if shape.padded and not shape.private and self.earliest is not None:
            self._zero(min(place, at + self.earliest), behind)
            return
        if shape.counts:
            end = shape.counts_end(self.words, place) if place < behind else behind + 8
            if end > behind:
                self._zero(place, behind)
                return
            self._stays(place, end)
            place = end
        if shape.chain:
            place += 8 + 8 * self.words[place // 8] if place < behind else 8
        if shape.has_raw and place < behind:
            place = self._raw(shape, place, behind)
        if place > behind:
            self._zero(at + shape.variable, behind)
        elif shape.odd:
            self._odd(shape, place, behind)
        elif shape.padded and self.private:
            self.data[place:behind] = bytes(behind - place)
        elif shape.padded:
            scan(self.data, place, behind)

    def _raw(self, shape: Shape, at: int, behind: int) -> int:
        """Gives where RAW ends; beyond the record: it makes no sense."""
        start, end = at + 4, at + 4 + int(_SIZE.unpack_from(self.data, at)[0])
        if end > behind or end % 8:
            return behind + 8
        self._stays(at, end)
        if shape.raw is None:
            slack = max(start, end - shape.unwritten)
            self.data[slack:end] = bytes(end - slack)
            scan(self.data, start, end)
        elif not shape.raw.hide(self.data, start, end):
            self._zero(start, end)
        return end

    def _odd(self, shape: Shape, at: int, behind: int) -> None:
        spans = shape.behind_raw(self.words, at, behind)
        if spans is None:
            self._zero(at, behind)
            return
        for start, end in spans:
            self.data[start:end] = bytes(end - start)

    def _zero(self, start: int, end: int) -> None:
        """What is not understood."""
        self.data[start:end] = bytes(end - start)
        self.blank += end - start
