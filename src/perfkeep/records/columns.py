"""From the bytes of records to columns: one set for every kind of event. Pure; needs numpy.

Every sample field that Linux 6.18 writes becomes a column, and every field of a tracepoint. What
does not fit its record is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import NamedTuple

import numpy as np

from perfkeep import records
from perfkeep.abi.perf_event import Attr, Branch, ReadFormat, Sample
from perfkeep.abi.records import HEADER_SIZE
from perfkeep.errors import DataError
from perfkeep.records import tracepoint
from perfkeep.records.cells import Column, Ints, Plan, View, behind
from perfkeep.records.pure_decode import Part
from perfkeep.records.raw import CONTEXT, field_column, is_number, number_type

#: Fields of one word each that come first, and their columns: name, and where in the word.
_FIRST: tuple[tuple[Sample, tuple[tuple[str, str, int], ...]], ...] = (
    (Sample.IDENTIFIER, (("id", "u8", 0),)),
    (Sample.IP, (("ip", "u8", 0),)),
    (Sample.TID, (("pid", "i4", 0), ("tid", "i4", 4))),
    (Sample.TIME, (("time", "i8", 0),)),
    (Sample.ADDR, (("addr", "u8", 0),)),
    (Sample.ID, (("id", "u8", 0),)),
    (Sample.STREAM_ID, (("stream_id", "u8", 0),)),
    (Sample.CPU, (("cpu", "i4", 0),)),
    (Sample.PERIOD, (("period", "u8", 0),)),
)
#: Samples of a batch: their columns stay in the caches, and Python's own time is little of it.
_BATCH = 1 << 14
_FIRST_BITS = sum(bit for bit, _ in _FIRST)
# In the order in which they lie behind STACK_USER, a word each.
_LAST = (
    (Sample.WEIGHT | Sample.WEIGHT_STRUCT, "weight"),
    (Sample.DATA_SRC, "data_src"),
    (Sample.TRANSACTION, "transaction"),
)
_VERY_LAST = (
    (Sample.PHYS_ADDR, "phys_addr"),
    (Sample.CGROUP, "cgroup"),
    (Sample.DATA_PAGE_SIZE, "data_page_size"),
    (Sample.CODE_PAGE_SIZE, "code_page_size"),
)


class Kind(NamedTuple):
    """What wrote samples: one event on all of its CPUs.

    Attributes:
        ids: the kernel's; none: nothing tells its samples from others', so it is the only one.
        format: what tracefs says of a tracepoint's fields, or "".
    """

    name: str
    attr: Attr
    ids: Sequence[int]
    format: str


@dataclass(slots=True)
class Rows:
    """Some samples of one kind of event.

    Attributes:
        offsets: of their records in the data.
    """

    columns: list[Column]
    offsets: Ints

    def __len__(self) -> int:
        return len(self.offsets)

    def get(self, name: str) -> Column | None:
        return next((one for one in self.columns if one.name == name), None)


class Table:
    """The samples of one kind of event, in the order in which they lie: in batches, which takes
    little memory, and less time, as the same memory serves again; some of them; or all at once, in
    `columns`.

    Args:
        found: offsets of its records in the data, malformed ones too.

    Attributes:
        found: as above.
        unread: kinds of fields that this version does not know, so that nothing behind them could
            be read; 0: none.
        with_context: adds columns that the records themselves do not have.
    """

    def __init__(self, view: View, kind: Kind, found: Ints) -> None:
        self.kind, self.found = kind, found
        self.unread = int(kind.attr.sample_type) & ~sum(Sample)
        self.with_context: Callable[[list[Column]], list[Column]] = list
        self._view = view

    @cached_property
    def _sample(self) -> tuple[list[_Part], Plan]:
        parts = _parts(self.kind)
        fields = [(at - 1, *one) for at, part in enumerate(parts) for one in part.fields]
        return parts, Plan([one.extent for one in parts[1:]], fields)

    @cached_property
    def names(self) -> list[str]:
        """Of its columns."""
        return [one.name for one in self.rows(slice(0)).columns]

    def rows(self, which: slice | Ints) -> Rows:
        """Some of its samples."""
        return self._rows(self.offsets[which])

    def _rows(self, offsets: Ints) -> Rows:
        """Of the records at these places, less what is malformed."""
        view = self._view
        parts, plan = self._sample
        read = view.read(offsets, plan)
        if not read.fits.all():
            offsets = offsets[read.fits]
            read = view.read(offsets, plan)
        fields = iter(read.fields)
        columns = []
        nothing = offsets[:0]
        for part, at, count in zip(
            parts, (nothing, *read.starts), (nothing, *read.counts), strict=True
        ):
            own = list(islice(fields, len(part.fields)))
            columns += part.columns(view, at, count, own)
        return Rows(self.with_context(_in_order(columns)), offsets)

    def batches(self) -> Iterator[Rows]:
        """Some samples, and then the next."""
        return map(self._rows, self._parts_of_found())

    def _parts_of_found(self) -> Iterator[Ints]:
        return (self.found[at : at + _BATCH] for at in range(0, len(self.found), _BATCH))

    @cached_property
    def columns(self) -> list[Column]:
        return self.rows(slice(None)).columns

    @cached_property
    def offsets(self) -> Ints:
        """Of its records, without what is malformed; no column is made for it."""
        parts, _ = self._sample
        plan = Plan([one.extent for one in parts[1:]], [])
        fits = [self._view.read(some, plan).fits for some in self._parts_of_found()]
        if all(one.all() for one in fits):
            return self.found
        good: Ints = self.found[np.concatenate(fits)]
        return good

    @property
    def malformed(self) -> int:
        """Samples that do not fit their record and are left out."""
        return len(self.found) - len(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets)

    def get(self, name: str) -> Column | None:
        return next((one for one in self.columns if one.name == name), None)


@dataclass(slots=True)
class Decoded:
    """A file's records.

    Attributes:
        others: offsets of the records that are no samples.
        unknown: samples of no known event.
        lost: samples that the kernel had no room for, by its own records.
        end: behind the last whole record; less than the data's length: the rest makes no sense.
    """

    tables: list[Table]
    others: Ints
    unknown: int
    lost: int
    end: int


def id_place(attrs: Sequence[Attr]) -> int | None:
    """Where every sample has its event's id; None: not all have it, or not in one place."""
    places = set()
    for attr in attrs:
        kinds = attr.sample_type
        if kinds & Sample.IDENTIFIER:
            places.add(HEADER_SIZE)
        elif kinds & Sample.ID:
            before = Sample.IP | Sample.TID | Sample.TIME | Sample.ADDR
            places.add(HEADER_SIZE + 8 * int(kinds & before).bit_count())
        else:
            return None
    return places.pop() if len(places) == 1 else None


def decode(data: memoryview, kinds: Sequence[Kind]) -> Decoded:
    """All records of a file's data section, or of a ring's copy in one piece.

    Raises:
        DataError: there are several kinds of events, and nothing tells whose a sample is.
    """
    place = id_place([kind.attr for kind in kinds])
    if place is None and len(kinds) > 1:
        raise DataError("samples of several events, and no ids that tell them apart", 0)
    pairs = sorted((id, at) for at, kind in enumerate(kinds) for id in kind.ids)
    ids = np.array([id for id, _ in pairs], "u8")
    numbers = np.array([at for _, at in pairs], "u4")
    one = place is None or (len(kinds) == 1 and not pairs)
    end, lost, found = records.split(
        data, 0, len(data), -1 if one or place is None else place,
        ids.tobytes(), numbers.tobytes(), len(kinds),
    )  # fmt: skip
    offsets = [np.frombuffer(one, "i8") for one in found]
    view = View(data)
    for some in offsets:
        if np.bitwise_or.reduce(some, initial=0) & 7:
            raise DataError("records that do not begin at a word", int(some[some % 8 > 0][0]))
    tables = [Table(view, kind, some) for kind, some in zip(kinds, offsets[:-2], strict=True)]
    return Decoded(tables, offsets[-2], len(offsets[-1]), lost, end)


class _Part(NamedTuple):
    """The header, something in a sample whose length it says itself, or a few words.

    Attributes:
        extent: how long it is, see records.pure_decode.Part.
        fields: (offset, numpy type) of integers that each has.
        columns: makes them of the data, where the part begins in each sample, what it counts there,
            and the fields.
    """

    extent: tuple[Part, int, int]
    fields: list[tuple[int, str]]
    columns: Callable[[View, Ints, Ints, list[Ints]], list[Column]]


def _parts(kind: Kind) -> list[_Part]:
    """All of a sample, in order."""
    attr, there = kind.attr, kind.attr.sample_type
    found = [
        _numbers([("misc", 4, "u2")], (Part.WORDS, 1, 0)),
        _numbers(_first(attr), (Part.WORDS, int(there & _FIRST_BITS).bit_count(), 0)),
    ]
    if there & Sample.READ:
        found.append(_counts(attr))
    if there & Sample.CALLCHAIN:
        found.append(_CALL_CHAIN)
    if there & Sample.RAW:
        found.append(_raw(kind))
    if there & Sample.BRANCH_STACK:
        found.append(_branches(attr))
    if there & Sample.REGS_USER:
        found.append(_registers("user", attr.sample_regs_user))
    if there & Sample.STACK_USER:
        found.append(_STACK)
    if names := [name for bit, name in _LAST if there & bit]:
        found.append(_words(names))
    if there & Sample.REGS_INTR:
        found.append(_registers("intr", attr.sample_regs_intr))
    if names := [name for bit, name in _VERY_LAST if there & bit]:
        found.append(_words(names))
    if there & Sample.AUX:
        found.append(_AUX)
    return found


def _in_order(columns: list[Column]) -> list[Column]:
    """Context first; of two of a name the first counts."""
    found: dict[str, Column] = {}
    for one in columns:
        found.setdefault(one.name, one)
    first = [found.pop(name) for name in CONTEXT if name in found]
    return [*first, *found.values()]


def _numbers(
    wanted: Sequence[tuple[str, int, str]],
    extent: tuple[Part, int, int],
    rest: Callable[[View, Ints, Ints], list[Column]] = lambda *_: [],
) -> _Part:
    """
    Args:
        wanted: (name, offset, numpy type) of columns of integers.
        rest: makes the columns behind them.
    """
    names = [name for name, _, _ in wanted]

    def columns(view: View, at: Ints, counts: Ints, fields: list[Ints]) -> list[Column]:
        found = [Column(name, "int", one) for name, one in zip(names, fields, strict=True)]
        return found + rest(view, at, counts)

    return _Part(extent, [(offset, type) for _, offset, type in wanted], columns)


def _first(attr: Attr) -> list[tuple[str, int, str]]:
    """The fields of fixed size that come first."""
    present = [parts for bit, parts in _FIRST if attr.sample_type & bit]
    return [
        (name, 8 * number + inside, type)
        for number, parts in enumerate(present)
        for name, type, inside in parts
    ]


def _words(names: Sequence[str]) -> _Part:
    return _numbers(_row(names), (Part.WORDS, len(names), 0))


def _row(names: Sequence[str], begin: int = 0) -> list[tuple[str, int, str]]:
    """Words one behind the other."""
    return [(name, begin + 8 * number, "u8") for number, name in enumerate(names)]


_CALL_CHAIN = _numbers(
    [], (Part.LIST, 0, 8), lambda view, at, counts: [view.lists("callchain", at + 8, counts)]
)
# As much of the stack as the kernel could read.
_STACK = _numbers(
    [], (Part.STACK, 0, 0), lambda view, at, sizes: [view.blobs("user_stack", at + 8, sizes)]
)
_AUX = _numbers([], (Part.LIST, 0, 1), lambda view, at, sizes: [view.blobs("aux", at + 8, sizes)])
_BYTES = _numbers([], (Part.BLOB, 0, 0), lambda view, at, sizes: [view.blobs("raw", at + 4, sizes)])


def _counts(attr: Attr) -> _Part:
    """READ: struct read_format."""
    how = attr.read_format
    times = [
        name
        for bit, name in (
            (ReadFormat.TOTAL_TIME_ENABLED, "read_enabled"),
            (ReadFormat.TOTAL_TIME_RUNNING, "read_running"),
        )
        if how & bit
    ]
    each = [
        name
        for bit, name in (
            (ReadFormat(0), "read_value"), (ReadFormat.ID, "read_id"), (ReadFormat.LOST, "read_lost"),
        )
        if not bit or how & bit
    ]  # fmt: skip
    if not how & ReadFormat.GROUP:
        return _words([each[0], *times, *each[1:]])
    begin, width = 8 + 8 * len(times), len(each)

    def lists(view: View, at: Ints, counts: Ints) -> list[Column]:
        return _interleaved(view.lists("", at + begin, counts * width), each, counts)

    return _numbers(_row(times, 8), (Part.LIST, 8 * len(times), 8 * width), lists)


def _interleaved(whole: Column, names: Sequence[str], counts: Ints) -> list[Column]:
    """Lists of structs of so many words, as a list for each word."""
    offsets = behind(counts)
    return [
        Column(name, "ints", whole.values[at :: len(names)], offsets)
        for at, name in enumerate(names)
    ]


def _branches(attr: Attr) -> _Part:
    """Three words each: from, to, flags; with COUNTERS one more each behind them all."""
    names = [f"branch_{name}" for name in ("from", "to", "flags")]
    before = ["branch_hw_index"] if attr.branch_sample_type & Branch.HW_INDEX else []
    counted = bool(attr.branch_sample_type & Branch.COUNTERS)
    begin = 8 + 8 * len(before)

    def lists(view: View, at: Ints, counts: Ints) -> list[Column]:
        found = _interleaved(view.lists("", at + begin, counts * 3), names, counts)
        if counted:
            found.append(view.lists("branch_counters", at + begin + 24 * counts, counts))
        return found

    return _numbers(_row(before, 8), (Part.LIST, begin - 8, 32 if counted else 24), lists)


def _registers(which: str, mask: int) -> _Part:
    return _numbers(
        _row([f"{which}_abi"]),
        (Part.REGISTERS, mask.bit_count(), 0),
        lambda view, at, counts: [view.lists(f"{which}_regs", at + 8, counts)],
    )


def _raw(kind: Kind) -> _Part:
    """A tracepoint's own fields; of any other event its bytes."""
    parsed = tracepoint.fields(kind.format) if kind.format else ()
    if not parsed:
        return _BYTES

    def columns(view: View, at: Ints, sizes: Ints, fields: list[Ints]) -> list[Column]:
        begin, found = at + 4, iter(fields)
        return [
            field_column(view, one, begin, sizes, next(found) if is_number(one) else None)
            for one in parsed
        ]

    return _Part(
        (Part.BLOB, max(one.offset + one.size for one in parsed), 0),
        [(4 + one.offset, number_type(one)) for one in parsed if is_number(one)],
        columns,
    )
