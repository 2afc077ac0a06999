"""A perf.data file, or a snapshot in memory, as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache, cached_property, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from perfkeep.abi.perf_data import Feature
from perfkeep.abi.records import Record
from perfkeep.analysis.chains import unread_stacks
from perfkeep.analysis.context import Context
from perfkeep.analysis.mapped import whole
from perfkeep.analysis.table_names import table_names
from perfkeep.errors import DataError, UsageError
from perfkeep.extras import needed
from perfkeep.formats.perf_data.reader import PerfData, files_of, named, parse
from perfkeep.formats.perf_data.tracing import parse_strings
from perfkeep.records.columns import Decoded, Table, Unaligned, decode
from perfkeep.records.names import Named, namer
from perfkeep.records.parts import Kind
from perfkeep.records.print_format import Printer, printer
from perfkeep.records.tasks import Tasks
from perfkeep.records.throttle import Throttled, by_name, sentences, throttled
from perfkeep.records.unseen import SENTENCE
from perfkeep.records.writers import Writers

if TYPE_CHECKING:
    from perfkeep.analysis.samples import Sample
    from perfkeep.analysis.sql import Connection
    from perfkeep.analysis.symbolize import Images, Symbolizer
    from perfkeep.formats.arrow import ArrowTable


class Data:
    """What a file holds.

    Attributes:
        file: the file as it lies.
        lost: samples that the kernel had no room for, by its own records.
        unknown: samples of events that the file does not know.
        unread_bytes: at the end, of no record.
        remarks: what answers so far do not show, and why, a sentence each.
    """

    def __init__(
        self, file: PerfData, kallsyms: Callable[[], bytes] = bytes, images: Images | None = None
    ) -> None:
        """
        Args:
            kallsyms: gives what /proc/kallsyms says, if it may be of the kernel that ran then; it
                is asked when functions are named, and not used where the file shows that it is not.
            images: see Symbolizer.
        """
        self.file = file
        self.remarks: list[str] = []
        self._printers: dict[str, Printer | None] = {}
        kinds = [
            Kind(
                one.name,
                one.attr,
                one.all_ids,
                one.tracepoint[3] if one.tracepoint else "",
                ":".join(one.tracepoint[:2]) if one.tracepoint else "",
            )
            for one in file.events
        ]
        try:
            self._decoded: Decoded = decode(file.data, kinds)
        except Unaligned:  # perf inject -b writes such records
            self.file = file = file.repacked()
            self._decoded = decode(file.data, kinds)
        self._context = Context(file, self._decoded.others, kallsyms, images)
        self.lost = self._decoded.lost
        self.unknown = self._decoded.unknown
        self.unread_bytes = len(file.data) - self._decoded.end + file.unread
        shown = [one for one in self._decoded.tables if len(one.found) or not one.kind.attr.dummy]
        names = table_names([table.kind for table in shown])
        self.tables: dict[str, Table] = dict(zip(names, shown, strict=True))
        for table in self.tables.values():
            table.with_context = partial(self._context.beside, table.kind.attr)

    @property
    def malformed(self) -> int:
        """Samples that do not fit their record."""
        return sum(one.malformed for one in self._decoded.tables)

    @cached_property
    def _throttled(self) -> Throttled:
        records = (record for kind, record in self.others() if kind == Record.THROTTLE)
        return throttled(records, Writers((one.attr, one.all_ids) for one in self.file.events))

    @property
    def throttled(self) -> dict[tuple[str, int], int]:
        """The number of times the kernel stopped an event until the next tick, because it sampled too
        often: by the event's name and the CPU.
        """
        return by_name(self._throttled, [event.name for event in self.file.events])

    def complaints(self) -> list[str]:
        """What could not be read, a sentence each."""
        said = []
        for name, table in self.tables.items():
            if table.unread:
                said.append(f"samples of {name} have fields that this version does not know")
            if text := unread_stacks(name, table.kind.attr):
                said.append(text)
        if self.malformed:
            said.append(f"{self.malformed:,} samples do not fit their records and are left out")
        if self.unknown:
            said.append(f"{self.unknown:,} samples are of events that the file does not know")
        said += self.file.complaints(self._decoded.end)
        if self.lost:
            said.append(f"{self.lost:,} samples were lost when they were recorded")
        if self._context.has_unseen:
            said.append(SENTENCE)
        return said + self.throttling()

    def throttling(self) -> list[str]:
        """A sentence for each event that the kernel throttled."""
        return sentences(self._throttled, [event.name for event in self.file.events])

    def remark(self, sentences: Iterable[str]) -> None:
        """Add to `remarks` what is not there yet."""
        self.remarks += [one for one in sentences if one not in self.remarks]

    # --- context ----------------------------------------------------------------------------------

    def others(self) -> Iterator[tuple[int, memoryview]]:
        """(type, bytes) of the records that are no samples."""
        return self._context.others()

    @property
    def tasks(self) -> Tasks:
        return self._context.tasks

    @property
    def wall_offset_ns(self) -> int | None:
        """What to add to a time of the recording's clock for ns since 1970; None: not known."""
        return self._context.wall_offset_ns

    @property
    def symbolizer(self) -> Symbolizer:
        """Names the functions of this file's samples."""
        return self._context.symbolizer

    @cached_property
    def _strings(self) -> dict[int, str]:
        """Constant ones of the kernel, by their addresses."""
        section = self.file.features.get(Feature.TRACING_DATA)
        try:
            return parse_strings(section) if section is not None else {}
        except DataError:  # behind what is needed to read the samples
            return {}

    def printer(self, name: str) -> Printer | None:
        """Prints the samples of a table; None: it is of no tracepoint."""
        if name not in self._printers:
            kind = self.tables[name].kind
            found = None
            if kind.format:
                found = printer(kind.format, cache(self._context.kernel_place), self._strings)
            self._printers[name] = found
        return self._printers[name]

    # --- what programs ask for --------------------------------------------------------------------

    def matching(self, event: str) -> list[str]:
        """Names of the tables that are called so, or whose events are: of these there may be several.

        Raises:
            UsageError: there is none.
        """
        if event in self.tables:
            return [event]
        names = [name for name, table in self.tables.items() if table.kind.name == event]
        if not names:
            raise UsageError(f"there is no table {event!r}; there are {', '.join(self.tables)}")
        return names

    def name_of(self, event: str) -> str:
        """Name of the one table that is called so, or whose event is.

        Raises:
            UsageError: there is none, or several events have this name.
        """
        name, *others = self.matching(event)
        if others:
            raise UsageError(
                f"several events are called {event!r}; their tables are {', '.join([name, *others])}"
            )
        return name

    def table(self, name: str) -> Table:
        """By its name in SQL, or the event's own.

        Raises:
            UsageError: there is none, or several events have this name.
        """
        return self.tables[self.name_of(name)]

    def samples(self, event: str | None = None) -> Iterator[Sample]:
        """Samples one by one in the order of time, for who wants to look at each.

            for sample in data.samples("sched_switch"):
                print(sample.time, sample.comm, sample["prev_pid"], sample.text)

        Args:
            event: of this one only, by its table's name; or of all events of this name.

        Raises:
            UsageError: there is no such event.
        """
        from perfkeep.analysis.samples import samples

        return samples(self, event)

    def to_arrow(self, name: str | None = None) -> ArrowTable | dict[str, ArrowTable]:
        """One table, or all of them by their names; rows are in the order of time.

        Raises:
            UsageError: there is no such table.
        """
        if name is not None:
            return self._arrow(self.table(name))
        return {known: self._arrow(table) for known, table in self.tables.items()}

    def with_names(self, name: str) -> ArrowTable:
        """One table, and beside numbers that have names their names: `prev_state_name` is "S" where
        `prev_state` is 1.
        """
        table = self.table(name)
        return self._arrow(table, namer(table.kind.format))

    @staticmethod
    def _arrow(table: Table, more: Named = list) -> ArrowTable:
        with needed():
            from perfkeep.formats.arrow import ArrowTable

        return ArrowTable(
            more(table.none.columns), lambda: (more(one.columns) for one in table.batches())
        )

    def to_pandas(self, name: str) -> Any:
        """One table as a pandas.DataFrame, with the columns of `with_names`.

        Raises:
            PerfkeepError: ENOPKG: pandas is not installed.
        """
        with needed():
            import_module("pandas")  # DuckDB's own error names no cure

        return self.sql(f'SELECT * FROM "{self.name_of(name)}"').df()

    def to_polars(self, name: str) -> Any:
        """One table as a polars.DataFrame, with the columns of `with_names`.

        Raises:
            PerfkeepError: ENOPKG: polars is not installed.
        """
        with needed():
            import polars

        return polars.DataFrame(self.with_names(name))

    @cached_property
    def connection(self) -> Connection:
        """DuckDB with these tables and the views over them."""
        with needed():
            from perfkeep.analysis.sql import connect

        return connect(self)

    def sql(self, query: str) -> Any:
        """DuckDB's relation, with fetchall(), df(), pl(), write_parquet() …

        The query runs before this returns, and its rows are kept in memory with the relation.

        Raises:
            UsageError: DuckDB refuses the query, or fails at a row.
        """
        connection = self.connection
        from perfkeep.analysis.sql import relation

        return relation(connection, query)


def read(path: str, kallsyms: Callable[[], bytes] = bytes) -> Data:
    """A perf.data file, or a directory, of perfkeep or of stock perf.

    Args:
        kallsyms: see Data.

    Raises:
        DataError: it is none, or a broken one.
        UsageError: a directory that perf did not write.
        OSError: it cannot be read.
    """
    header, parts = files_of(path)
    with named(path):
        return Data(parse(whole(header), [whole(part) for part in parts]), kallsyms)
