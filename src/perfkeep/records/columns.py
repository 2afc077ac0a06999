"""From the bytes of records to columns: one set for every kind of event. Pure; needs numpy.

Every sample field that Linux 6.18 writes becomes a column, and every field of a tracepoint. What
does not fit its record is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from perfkeep import records
from perfkeep.errors import DataError
from perfkeep.records.cells import Column, Ints, Plan, View
from perfkeep.records.groups import Part, carries_counts, parts
from perfkeep.records.parts import Kind, SamplePart, parts_of, unread
from perfkeep.records.raw import CONTEXT
from perfkeep.records.sample import Layout
from perfkeep.records.writers import Writers, id_place

#: Samples of a batch: their columns stay in the caches, and Python's own time is little of it.
_BATCH = 1 << 14


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

    def part(self, which: slice) -> Rows:
        """Some of them, one behind the other."""
        return Rows([one.part(which) for one in self.columns], self.offsets[which])


class Unaligned(DataError):
    """A record that does not begin at a word, as those of the kernel do."""


class Counted(NamedTuple):
    """Ids and periods of samples that carry counts of several events.

    Attributes:
        offsets: of the samples, ascending.
    """

    offsets: Ints
    ids: Ints
    periods: Ints

    def instead(self, columns: list[Column], offsets: Ints) -> list[Column]:
        """The columns of samples, with id and period of the event that they are samples of."""
        rows = np.searchsorted(self.offsets, offsets)
        own = [Column("id", "int", self.ids[rows]), Column("period", "int", self.periods[rows])]
        return [*(one for one in columns if one.name not in ("id", "period")), *own]


class Table:
    """The samples of one kind of event in the order of time (where it records none, as they lie): in
    batches, which takes little memory, and less time, as the same memory serves again; some of them; or
    all at once, in `columns`.

    Args:
        found: offsets of its records in the data, malformed ones too.

    Attributes:
        found: as above.
        unread: bits of sample_type whose fields this version cannot decode, nor what lies behind
            them; 0: it decodes whole samples.
        with_context: adds columns that the records themselves do not have, given those that they have
            and their offsets.
        counted: see records.groups; None: what samples have of id and period is the event's.
    """

    def __init__(self, view: View, kind: Kind, found: Ints) -> None:
        self.kind, self.found = kind, found
        self.unread = unread(kind.attr)
        self.counted: Counted | None = None
        self.with_context: Callable[[list[Column], Ints], list[Column]] = lambda own, _: own
        self._view = view

    @cached_property
    def _sample(self) -> tuple[list[SamplePart], Plan]:
        parts = parts_of(self.kind)
        fields = [(at - 1, *one) for at, part in enumerate(parts) for one in part.fields]
        return parts, Plan([one.extent for one in parts[1:]], fields)

    @cached_property
    def none(self) -> Rows:
        """None of its samples: what columns they have."""
        return self._rows(self.found[:0])

    @cached_property
    def names(self) -> list[str]:
        """Of its columns."""
        return [one.name for one in self.none.columns]

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
        columns = _in_order(columns)
        if self.counted is not None:
            columns = self.counted.instead(columns, offsets)
        return Rows(self.with_context(columns, offsets), offsets)

    def batches(self) -> Iterator[Rows]:
        """Some samples, and then the next."""
        return map(self._rows, self._parts_of_found())

    def _parts_of_found(self) -> Iterator[Ints]:
        return _in_parts(self._by_time)

    @cached_property
    def _by_time(self) -> Ints:
        """Offsets of its records in the order of time, malformed ones too; of one time, as they lie."""
        times = self._times(self.found)
        if times is None or not (times[1:] < times[:-1]).any():
            return self.found
        # Rings are read one after the other, and flight rings backward. Such runs are what a stable
        # sort is fast on.
        return self.found[np.argsort(times, kind="stable")]

    def _times(self, offsets: Ints) -> Ints | None:
        """The times of these records, any value for a malformed one; None: the event records none."""
        place = Layout(self.kind.attr).time_offset
        if place is None:
            return None
        return self._view.words(offsets + place)

    @property
    def times(self) -> Ints | None:
        """ns of each sample, in order; None: the event records none."""
        return self._times(self.offsets)

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
            return self._by_time
        good: Ints = self._by_time[np.concatenate(fits)]
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


def decode(data: memoryview, kinds: Sequence[Kind]) -> Decoded:
    """All records of a file's data section, or of a ring's copy in one piece.

    Raises:
        Unaligned: perf's own records of other lengths lie among them.
        DataError: there are several kinds of events, and nothing tells whose a sample is.
    """
    writers = Writers((kind.attr, kind.ids) for kind in kinds)
    place = id_place([kind.attr for kind in kinds])
    if place is None and len(kinds) > 1 and writers.only is None:
        raise DataError("samples of several events, and no ids that tell them apart", 0)
    pairs = sorted((id, at) for at, kind in enumerate(kinds) for id in kind.ids)
    ids = np.array([id for id, _ in pairs], "u8")
    numbers = np.array([at for _, at in pairs], "u4")
    one = writers.only is not None and (place is None or not pairs)
    end, lost, found = records.split(
        data, 0, len(data), -1 if one or place is None else place,
        ids.tobytes(), numbers.tobytes(), len(kinds),
    )  # fmt: skip
    offsets = [np.frombuffer(one, "i8") for one in found]
    if one and writers.only:
        offsets[0], offsets[writers.only] = offsets[writers.only], offsets[0]
    view = View(data)
    for some in offsets:
        if np.bitwise_or.reduce(some, initial=0) & 7:
            raise Unaligned("records that do not begin at a word", int(some[some % 8 > 0][0]))
    tables = _tables(view, kinds, offsets[:-2], writers)
    return Decoded(tables, offsets[-2], len(offsets[-1]), lost, end)


def _tables(
    view: View, kinds: Sequence[Kind], offsets: Sequence[Ints], writers: Writers
) -> list[Table]:
    """A table for each kind; samples that carry counts are in those of all events that they count."""
    tables = [Table(view, kind, found) for kind, found in zip(kinds, offsets, strict=True)]
    counting = [number for number, kind in enumerate(kinds) if carries_counts(kind.attr)]
    samples = [(at, view.record(at)) for number in counting for at in offsets[number].tolist()]
    if not samples:
        return tables
    known, malformed = parts(samples, writers)
    for number in counting:
        own = [offset for writer, offset in malformed if writer == number]
        tables[number] = Table(view, kinds[number], np.array(own, "i8"))
    shared: dict[tuple[int, int], list[Part]] = {}
    for part in known:
        shared.setdefault((part.event, part.writer), []).append(part)
    # First those that the event itself wrote: others may differ in their layout.
    for event, writer in sorted(shared, key=lambda pair: pair[0] != pair[1]):
        own_table = tables[event]
        table = _shared(view, kinds[event], kinds[writer], shared[event, writer])
        if event == writer:
            table.found = np.union1d(table.found, own_table.found)
        if event == writer or not len(own_table.found):
            tables[event] = table
        else:
            tables.append(table)
    return tables


#: The fields of an attr that determine the sample layout.
_LAYOUT = (
    "sample_type", "read_format", "branch_sample_type", "sample_regs_user", "sample_stack_user",
    "sample_regs_intr",
)  # fmt: skip


def _shared(view: View, kind: Kind, writer: Kind, own: Sequence[Part]) -> Table:
    """Samples of one event that another one wrote, or itself."""
    if kind is not writer:
        layout: dict[str, Any] = {name: getattr(writer.attr, name) for name in _LAYOUT}
        # The raw bytes are the writer's, and no fields of a tracepoint.
        kind = kind._replace(attr=replace(kind.attr, **layout), format="")
    rows = sorted((part.offset, part.id, part.period) for part in own)
    offsets, ids, periods = zip(*rows, strict=True)
    table = Table(view, kind, np.array(offsets, "i8"))
    table.counted = Counted(table.found, np.array(ids, "u8"), np.array(periods, "u8"))
    return table


def _in_parts(offsets: Ints) -> Iterator[Ints]:
    return (offsets[at : at + _BATCH] for at in range(0, len(offsets), _BATCH))


def _in_order(columns: list[Column]) -> list[Column]:
    """Context first; of two of a name the first counts."""
    found: dict[str, Column] = {}
    for one in columns:
        found.setdefault(one.name, one)
    first = [found.pop(name) for name in CONTEXT if name in found]
    return [*first, *found.values()]
