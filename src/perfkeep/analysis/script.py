"""Samples as lines of text, like `perf script`, or as objects for other programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfkeep.abi.perf_event import Software, Type
from perfkeep.analysis.chains import in_kernel
from perfkeep.analysis.mappings import KERNEL
from perfkeep.analysis.samples import Chosen, choose, frames, in_order, places, printed
from perfkeep.analysis.symbolize import HIDDEN, Place, Symbolizer
from perfkeep.errors import UsageError
from perfkeep.records.cells import Column, values
from perfkeep.records.columns import Rows, Table
from perfkeep.records.names import Named, namer

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data

Ints = NDArray[Any]

#: What `-F` takes: perf's names.
FIELDS = (
    "comm", "tid", "pid", "time", "cpu", "event", "trace", "ip", "sym", "dso", "addr", "symoff",
    "period", "weight", "phys_addr", "srcline",
)  # fmt: skip
_USUAL_PLACES = frozenset(("ip", "sym", "symoff", "dso"))
_PLACES = _USUAL_PLACES | {"srcline"}
_TRACEPOINT = frozenset(("comm", "tid", "cpu", "time", "event", "trace"))
_OTHER = frozenset(("comm", "tid", "cpu", "time", "event", "period")) | _USUAL_PLACES
#: Of what a field is, where it is not called the same.
_COLUMNS = {"sym": "ip", "dso": "ip", "symoff": "ip", "srcline": "ip", "event": None, "trace": None}
_FAULTS = {
    (Type.SOFTWARE, config)
    for config in (Software.PAGE_FAULTS, Software.PAGE_FAULTS_MIN, Software.PAGE_FAULTS_MAJ)
}
#: So many frames are remembered as text.
_REMEMBERED = 1 << 18


class Wanted(NamedTuple):
    """Which samples, and what of them.

    Attributes:
        fields: as `-F` names them; None: those that perf shows.
        only: columns, and the values of which a sample has one; of comm see `names_among`.
    """

    fields: str | None = None
    events: Sequence[str] = ()
    only: Mapping[str, Sequence[int | str]] = {}
    nanoseconds: bool = False
    call_chains: bool = True


def parse_fields(text: str | None, usual: frozenset[str]) -> frozenset[str]:
    """ "comm,tid", or "+pid,-period" on top of what is usual.

    Raises:
        UsageError: not of FIELDS, or both kinds in one.
    """
    if text is None:
        return usual
    words = [one.strip() for one in text.split(",") if one.strip()]
    signs = {one[0] if one[0] in "+-" else "" for one in words}
    if "" in signs and len(signs) > 1:
        raise UsageError("-F takes fields, or changes like +pid,-period, and not both at once")
    for one in words:
        if one.lstrip("+-") not in FIELDS:
            raise UsageError(f"{one!r} is no field; there are {', '.join(FIELDS)}")
    if "" in signs:
        return frozenset(words)
    taken = {one[1:] for one in words if one[0] == "-"}
    return (usual | {one[1:] for one in words if one[0] == "+"}) - taken


def chosen(data: Data, wanted: Wanted) -> list[tuple[str, Chosen]]:
    """The tables that are shown, and which samples of them.

    Raises:
        UsageError: there is no such event.
    """
    tables = list(data.tables.items())
    if wanted.events:
        named = {name for event in wanted.events for name in data.matching(event)}
        tables = [(name, table) for name, table in tables if name in named]

    only = {
        column: names_among(data, allowed)[0] if column == "comm" else allowed
        for column, allowed in wanted.only.items()
    }

    def keep(rows: Rows) -> Ints:
        some = [_among(rows, column, allowed) for column, allowed in only.items()]
        all_of_them: Ints = np.logical_and.reduce(some)
        return all_of_them

    return [(name, choose(table, keep if wanted.only else None)) for name, table in tables]


def names_among(data: Data, texts: Sequence[int | str]) -> tuple[list[str], list[str]]:
    """(names, those of them that no thread has). A text with commas is one name where a thread has it,
    and a list of names otherwise.
    """
    known = set(data.tasks.names)
    names = [
        name for text in map(str, texts) for name in ([text] if text in known else text.split(","))
    ]
    # A thread without a name is called ":" and its number.
    return names, [name for name in names if name not in known and not name.startswith(":")]


def _among(rows: Rows, name: str, allowed: Sequence[int | str]) -> Ints:
    column = rows.get(name)
    if column is None:
        return np.zeros(len(rows), bool)
    if column.form != "int":
        return np.fromiter((one in allowed for one in values(column)), bool, len(rows))
    return np.isin(column.values, np.array(list(allowed), "i8"))


class _Lines:
    """Makes lines of the samples of one event."""

    def __init__(self, data: Data, name: str, table: Table, wanted: Wanted, width: int) -> None:
        self.data, self.kind, self.width = data, table.kind, width
        self.has = frozenset(table.names)
        self.tracepoint = bool(table.kind.format) or table.kind.attr.type == Type.TRACEPOINT
        # Without a process nobody knows what an address is of.
        self.chains = wanted.call_chains and self.has >= {"callchain", "pid"}
        usual = _TRACEPOINT if self.tracepoint else _OTHER
        # As perf does it: what is named, even by a plus sign, is all of a tracepoint.
        if self.tracepoint and self.chains and wanted.fields is None:
            usual |= _USUAL_PLACES
        asked = parse_fields(wanted.fields, usual)
        if asked & _PLACES and "ip" not in asked:
            raise UsageError(
                "sym, symoff, dso and srcline are shown behind ip, which was not asked for",
                hint=f"name ip as well: -F ip,{','.join(sorted(asked & _PLACES))}",
            )
        self.missing = {one for one in asked if not self._has(one)}
        self.fields = asked - self.missing
        self.printer = data.printer(name) if "trace" in self.fields else None
        self.nanoseconds = wanted.nanoseconds
        self.places: dict[tuple[int, int, bool], str] = {}

    def _has(self, field: str) -> bool:
        if field == "trace":
            return self.tracepoint
        if field == "period":  # where samples carry none, the attr's stands for all
            return True
        column = _COLUMNS.get(field, field)
        return column is None or column in self.has or self._of_chain(field)

    def _of_chain(self, field: str) -> bool:
        return field in _PLACES and self.chains

    def __call__(self, rows: Rows, _: Ints) -> list[str]:
        """Each with its line feeds."""
        specs, parts = self._start()
        whole = [some for one in parts for some in self._part(one, rows)]
        spec = "".join(specs)
        heads = [spec % one for one in zip(*whole, strict=True)] if parts else [spec] * len(rows)
        for tail in self._tails(rows):
            heads = [head + one for head, one in zip(heads, tail, strict=True)]
        return [head + "\n" for head in heads]

    def _part(self, name: str, rows: Rows) -> list[list[Any]]:
        if name == "period" and name not in self.has:
            # By frequency, it is the frequency, in the attr as in perf's text.
            return [[self.kind.attr.sample_period] * len(rows)]
        if name != "time":
            return [values(_column(rows, name))]
        time = _column(rows, "time").values
        unit = 1 if self.nanoseconds else 1000
        return [(time // 10**9).tolist(), (time % 10**9 // unit).tolist()]

    def _start(self) -> tuple[list[str], list[str]]:
        """How a line begins, and with which columns."""
        has, specs, parts = self.fields, list[str](), list[str]()
        if "comm" in has:
            specs.append("%s " if self.chains and "ip" in has else "%16s ")
            parts.append("comm")
        if "pid" in has and "tid" in has:
            specs.append("%5d/%-5d ")
            parts += ["pid", "tid"]
        elif has & {"pid", "tid"}:
            specs.append("%5d ")
            parts.append("pid" if "pid" in has else "tid")
        time = "%5d.%09d: " if self.nanoseconds else "%5d.%06d: "
        for field, spec in (("cpu", "[%03d] "), ("time", time), ("period", "%10d ")):
            if field in has:
                specs.append(spec)
                parts.append(field)
        if "event" in has:
            specs.append(f"{self.kind.name:>{self.width}}: ".replace("%", "%%"))
        return specs, parts

    def _tails(self, rows: Rows) -> Iterator[list[str]]:
        has = self.fields
        if self.printer is not None:
            yield [_plain(one) for one in printed(self.printer, rows)]
        if "addr" in has:
            yield self._addresses(rows)
        if "weight" in has:
            yield [f"{one:16d}" for one in values(_column(rows, "weight"))]
        if "ip" in has:
            yield self._where(rows)
        if "phys_addr" in has:
            yield [f"{one:16x}" for one in values(_column(rows, "phys_addr"))]

    def _addresses(self, rows: Rows) -> list[str]:
        column = _column(rows, "addr")
        found = values(column)
        attr = self.kind.attr
        fault = attr.generic in _FAULTS
        if not fault or not self.fields & {"sym", "dso"} or "pid" not in self.has:
            return [f"{one:16x}" for one in found]
        symbolizer = self.data.symbolizer
        mappings = symbolizer.mappings
        of_kernel = in_kernel(mappings, column.values)
        spaces = np.where(of_kernel, KERNEL, mappings.of(rows)).tolist()
        return [
            f"{one:16x}{self._named(symbolizer.place(space, one))}"
            for space, one in zip(spaces, found, strict=True)
        ]

    def _where(self, rows: Rows) -> list[str]:
        chains = frames(self.data, rows) if self.chains else None
        if chains is not None:
            return ["\n" + "".join([self._place(*one, True) for one in chain]) for chain in chains]
        return [f" {self._place(*one, False)}" for one in places(self.data, rows)]

    def _place(self, space: int, address: int, of_chain: bool) -> str:
        """One frame; in a chain by its place in the file, as perf does it."""
        key = (space, address, of_chain)
        found = self.places.get(key)
        if found is None:
            place = self.data.symbolizer.place(space, address)
            shown = place.in_file if of_chain else address
            found = f"{shown:16x}{self._named(place)}"
            found = f"\t{found}\n" if of_chain else found
            line = self._line(space, address)
            if line:
                found += f"  {line}\n" if of_chain else f"\n  {line}"
            if len(self.places) >= _REMEMBERED:
                self.places.clear()
            self.places[key] = found
        return found

    def _line(self, space: int, address: int) -> str:
        if "srcline" not in self.fields:
            return ""
        return _plain(self.data.symbolizer.line(space, address))

    def _named(self, place: Place) -> str:
        text = ""
        if "sym" in self.fields:
            text = f" {_plain(place.name) or '[unknown]'}"
            if "symoff" in self.fields and place.name not in ("", HIDDEN):
                text += f"+{place.offset:#x}"
        return f"{text} ({_plain(place.file) or '[unknown]'})" if "dso" in self.fields else text


def _column(rows: Rows, name: str) -> Column:
    column = rows.get(name)
    assert column is not None
    return column


def _plain(text: str) -> str:
    """What others wrote, without what a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\t" else "?" for one in text)


def lines(data: Data, wanted: Wanted) -> Iterator[str]:
    """A sample each, in the order of time; with its call chain it has several lines.

    Raises:
        UsageError: there is no such event, or no such field, or none of the events recorded it.
    """
    some = chosen(data, wanted)
    width = max((len(one.kind.name) for one in data.tables.values()), default=0)
    makers = [_Lines(data, name, one.table, wanted, width) for name, one in some]
    if makers and wanted.fields is not None:
        missing = frozenset.intersection(*(frozenset(one.missing) for one in makers))
        # What is shown anyway is left out where there is none.
        missing &= {one.strip().lstrip("+") for one in wanted.fields.split(",")}
        if missing:
            raise UsageError(f"no event recorded {', '.join(sorted(missing))}")
    return in_order([one for _, one in some], makers)


def objects(data: Data, wanted: Wanted) -> Iterator[str]:
    """A JSON object for each sample, with a line feed; docs/json.md."""
    some = chosen(data, wanted)
    makers = [
        partial(_objects, data, name, one.table.kind.name, namer(one.table.kind.format))
        for name, one in some
    ]
    return in_order([one for _, one in some], makers)


_CONTEXT = ("time", "cpu", "pid", "tid", "comm", "host")


def _objects(data: Data, name: str, event: str, named: Named, rows: Rows, _: Ints) -> list[str]:
    printer = data.printer(name)
    texts = [None] * len(rows) if printer is None else printed(printer, rows)
    context = {one: rows.get(one) for one in _CONTEXT}
    about = {one: values(column) for one, column in context.items() if column is not None}
    columns = [
        one for one in named(rows.columns) if one.name not in (*_CONTEXT, "callchain", "misc")
    ]
    fields = [_jsonable(values(one)) for one in columns]
    names = [one.name for one in columns]
    chains = frames(data, rows)
    found = []
    for at, text in enumerate(texts):
        one: dict[str, Any] = {"event": event}
        one |= {key: some[at] for key, some in about.items()}
        one["fields"] = {key: some[at] for key, some in zip(names, fields, strict=True)}
        if text is not None:
            one["text"] = text
        if chains is not None:
            one["callchain"] = [_frame(data.symbolizer, *where) for where in chains[at]]
        found.append(json.dumps(one, ensure_ascii=False) + "\n")
    return found


def _frame(symbolizer: Symbolizer, space: int, address: int) -> dict[str, Any]:
    place, line = symbolizer.place(space, address), symbolizer.line(space, address)
    found = {"ip": address, "sym": place.name, "offset": place.offset, "dso": place.file}
    return found | ({"line": line} if line else {})


def _jsonable(some: list[Any]) -> list[Any]:
    """Bytes as hexadecimal digits."""
    return [one.hex() if isinstance(one, bytes) else one for one in some]
