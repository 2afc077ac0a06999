"""Samples one by one, of all events in the order of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from perfkeep.analysis import chains
from perfkeep.analysis.symbolize import Place
from perfkeep.records.cells import behind, values
from perfkeep.records.columns import Rows, Table
from perfkeep.records.print_format import Printer
from perfkeep.records.print_values import Value
from perfkeep.records.raw import column_name

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data

Ints = NDArray[Any]
T = TypeVar("T")

#: Samples that are read at a time: a few first, so that the first are there soon.
_FIRST, _MOST = 64, 8192


def printed(printer: Printer, rows: Rows, at: slice = slice(None)) -> list[str]:
    """What a tracepoint's `print fmt:` makes of these samples."""
    columns = [rows.get(column_name(one)) for one in printer.fields]
    count = len(range(len(rows))[at])
    if any(one is None for one in columns):
        return [""] * count
    if not columns:
        return [printer.text(())] * count
    parts = [values(one, at) for one in columns if one is not None]
    return [printer.text(row) for row in zip(*parts, strict=True)]


class Chosen(NamedTuple):
    """Some samples of a table.

    Attributes:
        rows: their numbers.
        times: of each; None: the event records none.
    """

    table: Table
    rows: Ints
    times: Ints | None


def choose(table: Table, keep: Callable[[Rows], Ints] | None = None) -> Chosen:
    """
    Args:
        keep: says of each of some samples whether it is wanted; None: all are.
    """
    if keep is None:
        return Chosen(table, np.arange(len(table)), table.times)
    at, numbers, times = 0, [np.empty(0, "i8")], [np.empty(0, "i8")]
    for rows in table.batches():
        some = np.nonzero(keep(rows))[0]
        numbers.append(some + at)
        at += len(rows)
        if (time := rows.get("time")) is not None:
            times.append(time.values[some])
    timed = "time" in table.names
    return Chosen(table, np.concatenate(numbers), np.concatenate(times) if timed else None)


def in_order(
    chosen: Sequence[Chosen], build: Sequence[Callable[[Rows, Ints], Sequence[T]]]
) -> Iterator[T]:
    """One thing for each sample, in the order of time; where some have none, as they lie.

    Args:
        build: makes the things of some rows of each table, given these and their numbers.
    """
    which = np.repeat(np.arange(len(chosen), dtype="u4"), [len(one.rows) for one in chosen])
    if not len(which):
        return
    rows = np.concatenate([one.rows for one in chosen])
    offsets = np.concatenate([one.table.offsets[one.rows] for one in chosen])
    times = [one.times for one in chosen if one.times is not None]
    if len(times) == len(chosen):
        order = np.lexsort((offsets, np.concatenate(times)))
    else:
        order = np.argsort(offsets, kind="stable")
    del offsets, times
    at, size = 0, _FIRST
    while at < len(order):
        part = order[at : at + size]
        made: list[Any] = [None] * len(part)
        for number in np.unique(which[part]).tolist():
            places = np.nonzero(which[part] == number)[0]
            numbers = rows[part[places]]
            some = chosen[number].table.rows(numbers)
            for place, one in zip(places.tolist(), build[number](some, numbers), strict=True):
                made[place] = one
        yield from made
        at, size = at + size, _MOST


class _Of:
    """What samples that were read together have in common."""

    def __init__(self, data: Data, name: str, event: str, rows: Rows) -> None:
        self.data, self.name, self.event, self.rows = data, name, event, rows
        self.columns = {one.name: one for one in rows.columns}

    def value(self, name: str, at: int) -> Any:
        return values(self.columns[name], slice(at, at + 1))[0]


class Sample(Mapping[str, Value]):
    """One sample: a mapping of its fields, which are the columns of its event's table.

    Attributes:
        event: as it was recorded: "sched:sched_switch".
        row: in the event's table.
    """

    __slots__ = ("_at", "_of", "row")

    def __init__(self, of: _Of, at: int, row: int) -> None:
        self._of, self._at, self.row = of, at, row

    def __getitem__(self, name: str) -> Value:
        found: Value = self._of.value(name, self._at)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._of.columns)

    def __len__(self) -> int:
        return len(self._of.columns)

    def __contains__(self, name: object) -> bool:
        return name in self._of.columns

    def __hash__(self) -> int:
        return hash((self.event, self.row))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sample):
            return NotImplemented
        mine, others = (self._of.name, self.row), (other._of.name, other.row)
        return self._of.data is other._of.data and mine == others

    def __repr__(self) -> str:
        return f"<{self.event} at {self.time}: {self.comm} {self.tid} {self.text}>"

    @property
    def event(self) -> str:
        return self._of.event

    def _context(self, name: str) -> Any:
        return self._of.value(name, self._at) if name in self._of.columns else None

    @property
    def time(self) -> int | None:
        """ns of the recording's clock; None, here as in the others: it was not recorded."""
        found: int | None = self._context("time")
        return found

    @property
    def cpu(self) -> int | None:
        found: int | None = self._context("cpu")
        return found

    @property
    def pid(self) -> int | None:
        found: int | None = self._context("pid")
        return found

    @property
    def tid(self) -> int | None:
        found: int | None = self._context("tid")
        return found

    @property
    def comm(self) -> str | None:
        """What the thread was called."""
        found: str | None = self._context("comm")
        return found

    @property
    def text(self) -> str:
        """As `perf script` prints a tracepoint's fields; "" of other events."""
        printer = self._of.data.printer(self._of.name)
        if printer is None:
            return ""
        return printed(printer, self._of.rows, slice(self._at, self._at + 1))[0]

    def called(self, name: str) -> str | None:
        """The name of a field's number: "S" of prev_state; None: it has none."""
        printer = self._of.data.printer(self._of.name)
        if printer is None or name not in printer.names:
            return None
        field = next(one for one in printer.fields if one.name == name)
        return printer.names[name](self._of.value(column_name(field), self._at))

    @property
    def callchain(self) -> list[Place]:
        """The functions that it was taken in, the innermost first."""
        data, at = self._of.data, slice(self._at, self._at + 1)
        chains = frames(data, self._of.rows.part(at)) or ()
        return [data.symbolizer.place(*frame) for chain in chains for frame in chain]


def samples(data: Data, event: str | None = None) -> Iterator[Sample]:
    """All, or those of one event; see Data.samples."""
    names = list(data.tables) if event is None else data.matching(event)
    tables = [data.tables[name] for name in names]

    def maker(name: str, table: Table) -> Callable[[Rows, Ints], list[Sample]]:
        def make(rows: Rows, numbers: Ints) -> list[Sample]:
            of = _Of(data, name, table.kind.name, rows)
            return [Sample(of, at, row) for at, row in enumerate(numbers.tolist())]

        return make

    makers = [maker(name, table) for name, table in zip(names, tables, strict=True)]
    return in_order([choose(one) for one in tables], makers)


def frames(data: Data, rows: Rows) -> list[list[tuple[int, int]]] | None:
    """(address space, address) of each frame of these samples, the innermost first; None: no call
    chains.
    """
    if rows.get("callchain") is None or rows.get("pid") is None:
        return None
    mappings = data.symbolizer.mappings
    spaces, addresses, lengths = chains.frames(mappings, chains.recorded(mappings, rows))
    pairs = list(zip(spaces.tolist(), addresses.tolist(), strict=True))
    return [pairs[begin:end] for begin, end in pairwise(behind(lengths).tolist())]


def places(data: Data, rows: Rows) -> list[tuple[int, int]]:
    """(address space, address) of each of these samples, without its callers."""
    mappings = data.symbolizer.mappings
    column = rows.get("ip")
    assert column is not None
    one = np.ones(len(rows), "i8")
    alone = chains.CallChains(column.values, one, mappings.of(rows), chains.modes(rows))
    spaces, addresses, _ = chains.frames(mappings, alone)
    return list(zip(spaces.tolist(), addresses.tolist(), strict=True))
