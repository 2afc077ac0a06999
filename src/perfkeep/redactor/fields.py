"""The positions of those sample fields that guests may not see all of. Pure.

records.sample knows what readers want; this knows where each field ends, to the last one, and that
of some the kernel writes only a part: the rest is what the ring held there before.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from perfkeep.abi.perf_event import BRANCH_BITS, Attr, Branch, Flag, ReadFormat, Sample, Type
from perfkeep.abi.records import (
    HEADER_SIZE,
    SAMPLE_ID_WORDS,
    SAMPLE_WORDS,
    beyond,
    bits,
    sample_at,
    sample_id_at,
    trailer_id_at,
    word_count,
)

LOWEST, BEYOND = 0xFF << 56, 2**64 - 4096
#: A pid or less (PID_MAX_LIMIT) beside a tid of -1, as of a thread that has just exited.
DEAD, DEAD_END = 0xFFFFFFFF << 32, (0xFFFFFFFF << 32) + (1 << 22) + 1

# Whoever starts a recording says what its formats are: nothing in them may take long.
_FIELD = re.compile(r"field:([^;\n]{0,256});\s{0,8}offset:(\d{1,6});\s{0,8}size:(\d{1,6});")
_TEXT = re.compile(r"^(const )?char\b")
_COUNT = re.compile(r"\[(\d{1,6})\]\s*$")
# From a byte that may be the highest of an address to the last such byte that is near enough for
# their windows to overlap.
_WINDOWS = re.compile(rb"[\x00-\xff]{7}\xff(?:[\x00-\xff]{0,6}\xff)*")

# What lies behind BRANCH_STACK, in that order. WEIGHT stands for both of its kinds.
_BEHIND = (
    Sample.REGS_USER, Sample.STACK_USER, Sample.WEIGHT, Sample.DATA_SRC, Sample.TRANSACTION,
    Sample.REGS_INTR, Sample.PHYS_ADDR, Sample.CGROUP, Sample.DATA_PAGE_SIZE,
    Sample.CODE_PAGE_SIZE, Sample.AUX,
)  # fmt: skip
_WEIGHTS = Sample.WEIGHT | Sample.WEIGHT_STRUCT
#: The contents of a program's registers and stack.
PRIVATE = Sample.REGS_USER | Sample.STACK_USER | Sample.REGS_INTR
# Whose words do not show what they are.
_ODD = PRIVATE | Sample.PHYS_ADDR | Sample.AUX
#: The fields that there is code for below. A bit that merely has a name is not among them.
_HANDLED = bits(
    (
        *SAMPLE_WORDS, Sample.READ, Sample.CALLCHAIN, Sample.RAW, Sample.BRANCH_STACK, *_BEHIND,
        _WEIGHTS,
    )
)  # fmt: skip
_READ_HANDLED = (
    ReadFormat.TOTAL_TIME_ENABLED | ReadFormat.TOTAL_TIME_RUNNING | ReadFormat.ID
    | ReadFormat.LOST | ReadFormat.GROUP
)  # fmt: skip
_ANYTHING = 1 << 16

Span = tuple[int, int]


def is_address(value: int) -> bool:
    return LOWEST <= value < BEYOND and not DEAD <= value < DEAD_END


def scan(data: bytearray, start: int, end: int) -> None:
    """Leave no 8 bytes whose highest is 0xff, wherever they begin."""
    if data.find(b"\xff", start + 7, end) >= 0:
        data[start:end] = _WINDOWS.sub(lambda found: bytes(len(found[0])), data[start:end])


class Raw(NamedTuple):
    """A tracepoint's own bytes.

    Attributes:
        words: unpacks the fields of 8 bytes, and `places` is where they are.
        any: spans in which an address may begin anywhere: arrays of whatever else.
        texts: arrays of char.
        holes: spans of no field, which hold what a tracepoint before this one left there.
        end: behind the last field.
        open: whether something without a place of its own lies behind that: strings, arrays.
    """

    words: struct.Struct
    places: tuple[int, ...]
    any: tuple[Span, ...]
    texts: tuple[Span, ...]
    holes: tuple[Span, ...]
    end: int
    open: bool

    def hide(self, data: bytearray, start: int, end: int) -> bool:
        """False: it is shorter than its fields."""
        if end - start < self.end:
            return False
        for place, value in zip(self.places, self.words.unpack_from(data, start), strict=True):
            if value >= LOWEST and is_address(value):
                data[start + place : start + place + 8] = bytes(8)
        for one, behind in self.any:
            scan(data, start + one, start + behind)
        for one, behind in self.texts:
            # Not every tracepoint fills what is left.
            over = data.find(0, start + one, start + behind)
            if over >= 0:
                data[over : start + behind] = bytes(start + behind - over)
        for one, behind in self.holes:
            data[start + one : start + behind] = bytes(behind - one)
        if self.open:
            scan(data, start + self.end, end)
        else:
            data[start + self.end : end] = bytes(end - start - self.end)
        return True


def parse(format: str) -> Raw | None:
    """What tracefs says of a tracepoint's fields; None when that cannot be."""
    fields = sorted((int(at), int(size), text) for text, at, size in _FIELD.findall(format))
    code, places, word_end, end, open_ = "=", list[int](), 0, 0, False
    any_, texts, holes = list[Span](), list[Span](), list[Span]()
    for at, size, text in fields:
        if at < end or at + size > _ANYTHING:
            return None
        if at > end:
            holes.append((end, at))
        end = at + size
        count = _COUNT.search(text)
        if not size or "_loc " in text:
            open_ = True
        elif size == 8 or (count is not None and size == 8 * int(count[1])):
            code += f"{at - word_end}x{size // 8}Q"
            places += range(at, end, 8)
            word_end = end
        elif size > 8:
            (texts if _TEXT.search(text) else any_).append((at, end))
    if not fields:
        return None
    return Raw(
        struct.Struct(code), tuple(places), tuple(any_), tuple(texts), tuple(holes), end, open_
    )


class Shape:
    """The samples of one kind of event."""

    def __init__(self, attr: Attr, format: str) -> None:
        kinds = attr.sample_type
        self.attr = attr
        #: Where a sample has its event's id; None: it has none.
        self.id_at = sample_id_at(kinds)
        #: Where a sample has its pid and tid; None: it has none.
        self.task_at = sample_at(kinds, Sample.TID)
        self.variable = HEADER_SIZE + 8 * word_count(kinds, SAMPLE_WORDS)
        #: Bytes that sample_id_all adds to its other records.
        self.trailer = 0
        #: The offset of the id in its other records, from their end; None: they have none.
        self.trailer_id_at: int | None = None
        if attr.flags & Flag.SAMPLE_ID_ALL:
            self.trailer = 8 * word_count(kinds, SAMPLE_ID_WORDS)
            self.trailer_id_at = trailer_id_at(kinds)
        self.chain = bool(kinds & Sample.CALLCHAIN)
        self.counts = bool(kinds & Sample.READ)
        self.has_raw = bool(kinds & Sample.RAW)
        self.raw = parse(format)
        #: Bytes at the end of RAW that the kernel may not have written: a tracepoint's it has.
        self.unwritten = 0 if attr.type == Type.TRACEPOINT else 7
        #: True if the end of each of its fields can be found.
        self.known = not (
            beyond(kinds, _HANDLED)
            or beyond(attr.read_format, _READ_HANDLED)
            or beyond(attr.branch_sample_type, BRANCH_BITS)
        )
        self.private = bool(kinds & PRIVATE)
        self.odd = bool(kinds & _ODD)
        #: Linux (6.18) may say that its samples are longer than they are, and what lies there is as
        #: old as the ring; see formats.perf_data.mixed.
        self.padded = attr.counted_in_software
        #: Nothing but words, each of which shows what it is.
        self.plain = self.known and not (self.counts or self.has_raw or self.odd or self.padded)

    def counts_end(self, words: memoryview, at: int) -> int:
        """Behind READ."""
        how = self.attr.read_format
        times = bool(how & ReadFormat.TOTAL_TIME_ENABLED) + bool(
            how & ReadFormat.TOTAL_TIME_RUNNING
        )
        each = 1 + bool(how & ReadFormat.ID) + bool(how & ReadFormat.LOST)
        if not how & ReadFormat.GROUP:
            return at + 8 * (times + each)
        return at + 8 * (1 + times + each * int(words[at // 8]))

    def behind_raw(self, words: memoryview, at: int, end: int) -> list[Span] | None:
        """What must be blank behind RAW whatever it looks like; None: it cannot be understood.

        How long BRANCH_STACK is cannot always be told. What is blank by any reading is blank.
        """
        found: list[Span] = []
        fits = False
        for behind in self._behind_branches(words, at, end):
            spans = self._odd_spans(words, behind, end)
            fits |= spans is not None
            found += spans or []
        return found if fits else None

    def _behind_branches(self, words: memoryview, at: int, end: int) -> Iterator[int]:
        if not self.attr.sample_type & Sample.BRANCH_STACK:
            yield at
        elif at + 8 <= end:
            count, how = int(words[at // 8]), self.attr.branch_sample_type
            for index in {0, 8 * bool(how & Branch.HW_INDEX)}:
                for counters in {0, 8 * count * bool(how & Branch.COUNTERS)}:
                    yield at + 8 + 24 * count + index + counters

    def _odd_spans(self, words: memoryview, at: int, end: int) -> list[Span] | None:
        kinds, found = self.attr.sample_type, list[Span]()
        for field in _BEHIND:
            if not kinds & (_WEIGHTS if field == Sample.WEIGHT else field):
                continue
            if at + 8 > end:
                return None
            value, at = int(words[at // 8]), at + 8
            if field in (Sample.REGS_USER, Sample.REGS_INTR):
                user = field == Sample.REGS_USER
                mask = self.attr.sample_regs_user if user else self.attr.sample_regs_intr
                size = 8 * mask.bit_count() if value else 0
                found.append((at, min(at + size, end)))
                at += size
            elif field == Sample.PHYS_ADDR:
                found.append((at - 8, at))
            elif field == Sample.AUX:
                found.append((at, min(at + value, end)))
                at += value
            elif field == Sample.STACK_USER and value:
                # The word behind it says how much of it there is: nothing, for the reader.
                if value % 8 or at + value + 8 > end:
                    return None
                found.append((at, at + value + 8))
                at += value + 8
        return found if at == end else None
