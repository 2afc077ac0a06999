"""Samples one by one, of all events in the order of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from perfkeep.analysis.symbolize import CONTEXTS, Place
from perfkeep.records.cells import Column
from perfkeep.records.columns import Table
from perfkeep.records.print_format import Printer
from perfkeep.records.print_values import Value
from perfkeep.records.raw import column_name

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data

Ints = NDArray[Any]
T = TypeVar("T")

#: Samples that are made into objects at a time: a few first, so that the first are there soon.
_FIRST, _MOST = 64, 8192


def values(column: Column, rows: Ints) -> list[Any]:
    """Of these rows, as Python has them."""
    if column.offsets is None:
        found: list[Any] = column.values[rows].tolist()
        return found
    begins, ends = column.offsets[rows].tolist(), column.offsets[rows + 1].tolist()
    some = zip(begins, ends, strict=True)
    if column.form == "ints":
        return [column.values[at:end].tolist() for at, end in some]
    whole = np.ascontiguousarray(column.values).data.cast("B")
    if column.form == "bytes":
        return [bytes(whole[at:end]) for at, end in some]
    return [str(whole[at:end], "utf-8") for at, end in some]


def printed(printer: Printer, table: Table, rows: Ints) -> list[str]:
    """What a tracepoint's `print fmt:` makes of these samples."""
    columns = [table.get(column_name(one)) for one in printer.fields]
    if any(one is None for one in columns):
        return [""] * len(rows)
    if not columns:
        return [printer.text(())] * len(rows)
    parts = [values(one, rows) for one in columns if one is not None]
    return [printer.text(row) for row in zip(*parts, strict=True)]


def in_order(
    tables: Sequence[Table], chosen: Sequence[Ints], build: Sequence[Callable[[Ints], Sequence[T]]]
) -> Iterator[T]:
    """One thing for each sample, in the order of time; where some have none, as they lie.

    Args:
        chosen: which rows of each table.
        build: makes the things of some rows of each table.
    """
    which = np.repeat(np.arange(len(tables), dtype="u4"), [len(one) for one in chosen])
    if not len(which):
        return
    rows = np.concatenate(chosen)
    offsets = np.concatenate([one.offsets[some] for one, some in zip(tables, chosen, strict=True)])
    times = [one.get("time") for one in tables]
    if any(one is None for one in times):
        order = np.argsort(offsets, kind="stable")
    else:
        known = [one.values[some] for one, some in zip(times, chosen, strict=True) if one]
        order = np.lexsort((offsets, np.concatenate(known)))
    del offsets, times
    at, size = 0, _FIRST
    while at < len(order):
        part = order[at : at + size]
        made: list[Any] = [None] * len(part)
        for number in np.unique(which[part]).tolist():
            places = np.nonzero(which[part] == number)[0]
            for place, one in zip(places.tolist(), build[number](rows[part[places]]), strict=True):
                made[place] = one
        yield from made
        at, size = at + size, _MOST


class _Of:
    """What all samples of an event have in common."""

    def __init__(self, data: Data, name: str, table: Table) -> None:
        self.data, self.name, self.event = data, name, table.kind.name
        self.columns = {one.name: one for one in table.columns}

    def value(self, name: str, row: int) -> Any:
        return values(self.columns[name], np.array([row]))[0]


class Sample(Mapping[str, Value]):
    """One sample: a mapping of its fields, which are the columns of its event's table.

    Attributes:
        event: as it was recorded: "sched:sched_switch".
        row: in the event's table.
    """

    __slots__ = ("_of", "row")

    def __init__(self, of: _Of, row: int) -> None:
        self._of, self.row = of, row

    def __getitem__(self, name: str) -> Value:
        found: Value = self._of.value(name, self.row)
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
        return self._of.data is other._of.data and hash(self) == hash(other)

    def __repr__(self) -> str:
        return f"<{self.event} at {self.time}: {self.comm} {self.tid} {self.text}>"

    @property
    def event(self) -> str:
        return self._of.event

    def _context(self, name: str) -> Any:
        return self._of.value(name, self.row) if name in self._of.columns else None

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
        table = self._of.data.tables[self._of.name]
        return printed(printer, table, np.array([self.row]))[0]

    def called(self, name: str) -> str | None:
        """The name of a field's number: "S" of prev_state; None: it has none."""
        printer = self._of.data.printer(self._of.name)
        if printer is None or name not in printer.names:
            return None
        field = next(one for one in printer.fields if one.name == name)
        return printer.names[name](self._of.value(column_name(field), self.row))

    @property
    def callchain(self) -> list[Place]:
        """The functions that it was taken in, the innermost first."""
        chain = self._context("callchain") or []
        symbolizer = self._of.data.symbolizer
        (space,) = symbolizer.mappings.of(
            self._of.data.tables[self._of.name], np.array([self.row])
        ).tolist()
        return [symbolizer.place(space, one) for one in chain if one < CONTEXTS]


def samples(data: Data, event: str | None = None) -> Iterator[Sample]:
    """All, or those of one event; see Data.samples."""
    names = list(data.tables)
    if event is not None:
        wanted = data.table(event)
        names = [name for name, table in data.tables.items() if table is wanted]
    tables = [data.tables[name] for name in names]

    def maker(name: str, table: Table) -> Callable[[Ints], list[Sample]]:
        of = _Of(data, name, table)
        return lambda rows: [Sample(of, row) for row in rows.tolist()]

    makers = [maker(name, table) for name, table in zip(names, tables, strict=True)]
    return in_order(tables, [np.arange(len(one)) for one in tables], makers)


def frames(data: Data, table: Table, rows: Ints) -> list[list[tuple[int, int]]] | None:
    """(address space, address) of each frame of these samples, the innermost first; None: no call
    chains.
    """
    chain = table.get("callchain")
    if chain is None or table.get("pid") is None:
        return None
    spaces = data.symbolizer.mappings.of(table, rows).tolist()
    return [
        [(whose, address) for address in addresses if address < CONTEXTS]
        for whose, addresses in zip(spaces, values(chain, rows), strict=True)
    ]
