"""DuckDB over the tables of a file, with views for the questions that are asked most."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

import duckdb
import numpy as np

from perfkeep.analysis.stacks import default_event, stacks
from perfkeep.analysis.tree import tree
from perfkeep.errors import UsageError
from perfkeep.formats.arrow import ArrowTable
from perfkeep.records.cells import Column, Texts

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data

Connection = duckdb.DuckDBPyConnection
#: What is wrong with a query, or came of it.
SqlError = duckdb.Error

_MOST = 2**63 - 1

# Of each thread: when it was switched out, when in again, and what for it was out.
_OFF_CPU = """
CREATE VIEW off_cpu AS
SELECT tid, comm, start, duration_ns, state,
       CASE WHEN state = 0 OR state = 256 THEN 'preempted' WHEN state & 1 = 1 THEN 'sleeping'
            WHEN state & 2 = 2 THEN 'uninterruptible' ELSE 'other' END AS why
FROM (
  SELECT tid, comm, time AS start, out, state,
         lead(time) OVER w - time AS duration_ns, lead(out) OVER w AS next_out
  FROM (
    SELECT prev_pid AS tid, prev_comm AS comm, time, true AS out, prev_state AS state
      FROM {switches} WHERE prev_pid != 0
    UNION ALL
    SELECT next_pid, next_comm, time, false, 0 FROM {switches} WHERE next_pid != 0)
  WINDOW w AS (PARTITION BY tid ORDER BY time, out DESC))
WHERE out AND NOT next_out
"""

# From the wake-up, or from being preempted, until it runs.
_RUN_QUEUE = """
CREATE VIEW run_queue AS
SELECT tid, comm, start, duration_ns, cpu
FROM (
  SELECT tid, comm, time AS start, ready,
         lead(time) OVER w - time AS duration_ns, lead(ready) OVER w AS next_ready,
         lead(cpu) OVER w AS cpu
  FROM (
    {wakeups}
    SELECT prev_pid AS tid, prev_comm AS comm, time, cpu, true AS ready
      FROM {switches} WHERE prev_pid != 0 AND prev_state IN (0, 256)
    UNION ALL
    SELECT next_pid, next_comm, time, cpu, false FROM {switches} WHERE next_pid != 0)
  WINDOW w AS (PARTITION BY tid ORDER BY time, ready DESC))
WHERE ready AND NOT next_ready
"""
_WAKEUP = """
    SELECT event_pid AS tid, event_comm AS comm, time, cpu, true AS ready FROM "{table}"
    UNION ALL"""

# Of each call the exit that follows it in the same thread.
_SYSCALL = """
SELECT '{name}' AS name, tid, comm, start, duration_ns, ret
FROM (
  SELECT tid, comm, time AS start, entered, lead(entered) OVER w AS next_entered,
         lead(time) OVER w - time AS duration_ns, lead(ret) OVER w AS ret
  FROM (
    SELECT tid, comm, time, true AS entered, NULL::BIGINT AS ret FROM "{enter}"
    UNION ALL
    SELECT tid, comm, time, false, ret FROM "{exit}")
  WINDOW w AS (PARTITION BY tid ORDER BY time, entered DESC))
WHERE entered AND NOT next_entered
"""


_SWITCH = {"prev_pid", "prev_comm", "prev_state", "next_pid", "next_comm", "time", "cpu", "tid"}
_WOKEN = {"event_pid", "event_comm", "time", "cpu"}
_ENTER, _EXIT = {"tid", "comm", "time"}, {"tid", "comm", "time", "ret"}


class _Tracepoints:
    """The tables of tracepoints by what the events are, not by how the tables are called."""

    def __init__(self, data: Data) -> None:
        self._names: dict[str, str] = {}
        self._tables = data.tables
        # Of several of one tracepoint, with different filters, the one with most samples.
        for name, table in sorted(data.tables.items(), key=lambda item: len(item[1].found)):
            if table.kind.format:
                event = ":".join(table.kind.name.split("/")[0].split(":")[:2])
                self._names[event] = name

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def get(self, event: str, columns: set[str]) -> str | None:
        """Name of the table of this tracepoint, if it has these columns."""
        name = self._names.get(event)
        return name if name is not None and columns <= set(self._tables[name].names) else None


def _views(tracepoints: _Tracepoints) -> list[str]:
    """Statements for what the tables that are there can answer."""
    found = []
    if switches := tracepoints.get("sched:sched_switch", _SWITCH):
        found.append(_OFF_CPU.format(switches=f'"{switches}"'))
        woken = [
            tracepoints.get(f"sched:{name}", _WOKEN)
            for name in ("sched_wakeup", "sched_wakeup_new")
        ]
        wakeups = "".join(_WAKEUP.format(table=name) for name in woken if name)
        found.append(_RUN_QUEUE.format(switches=f'"{switches}"', wakeups=wakeups))
    prefix = "syscalls:sys_enter_"
    calls = [event.removeprefix(prefix) for event in tracepoints if event.startswith(prefix)]
    pairs = [
        (
            call,
            tracepoints.get(prefix + call, _ENTER),
            tracepoints.get(f"syscalls:sys_exit_{call}", _EXIT),
        )
        for call in calls
    ]
    parts = [
        _SYSCALL.format(name=call.replace("'", "''"), enter=enter, exit=exit)
        for call, enter, exit in pairs
        if enter and exit
    ]
    if parts:
        found.append(f"CREATE VIEW syscalls AS {' UNION ALL '.join(parts)}")
    return found


class _Flames:
    """Who called what, as rows; made when it is first asked for."""

    def __init__(self, data: Data) -> None:
        self._data = data

    @cached_property
    def _table(self) -> ArrowTable:
        rows = tree(stacks(self._data, default_event(self._data)))
        codes: dict[str, int] = {"": 0}
        texts = [
            np.array([codes.setdefault(text, len(codes)) for text in some], "i8")
            for some in ([row.name for row in rows], [row.file for row in rows])
        ]
        # A file may say any period, and the sums must fit.
        numbers = np.array(
            [
                (row.parent, row.depth, min(row.own, _MOST), min(row.total, _MOST), row.samples)
                for row in rows
            ],
            "i8",
        )
        parent, depth, own, total, samples = numbers.reshape(-1, 5).T
        names = Texts(codes)
        return ArrowTable.of(
            [
                Column("id", "int", np.arange(len(rows))),
                Column("parent", "int", np.ascontiguousarray(parent)),
                Column("depth", "int", np.ascontiguousarray(depth)),
                names.column("name", texts[0]),
                names.column("file", texts[1]),
                Column("self", "int", np.ascontiguousarray(own)),
                Column("total", "int", np.ascontiguousarray(total)),
                Column("samples", "int", np.ascontiguousarray(samples)),
            ]
        )

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def connect(data: Data) -> Connection:
    """A database in memory whose tables are those of the file; it reads no other file."""
    connection = duckdb.connect(":memory:")
    for name in data.tables:
        connection.register(name, data.with_names(name))
    with suppress(UsageError):  # no event says where it was taken
        default_event(data)
        # A twin without this connection: what holds itself is never let go of before the end.
        connection.register("flames", _Flames(copy.copy(data)))
    for statement in _views(_Tracepoints(data)):
        connection.execute(statement)
    return connection


def relation(connection: Connection, query: str) -> Any:
    """DuckDB's relation for a query; None for a statement without rows.

    Raises:
        UsageError: DuckDB refuses the query. What fails while rows are fetched raises its own error.
    """
    try:
        return connection.sql(query)
    except SqlError as error:
        raise UsageError(str(error)) from error


def ask(connection: Connection, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of the columns, and the rows; nothing of a statement that gives none.

    Raises:
        SqlError.
    """
    relation: Any = connection.sql(query)
    if relation is None:
        return [], []
    return list(relation.columns), relation.fetchall()


def write_rows(connection: Connection, query: str, form: str, out: BinaryIO) -> None:
    """The rows of a query as "csv" or "parquet".

    Raises:
        SqlError.
    """
    with tempfile.TemporaryDirectory(prefix="perfkeep-") as folder:
        connection.execute(f"COPY ({query.strip().rstrip(';')}) TO '{folder}/rows' (FORMAT {form})")
        with open(f"{folder}/rows", "rb") as rows:
            shutil.copyfileobj(rows, out, 1 << 20)


def schema(connection: Connection) -> list[tuple[str, str, str]]:
    """(table, column, type), in order."""
    rows: list[Any] = connection.sql(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " ORDER BY table_name, ordinal_position"
    ).fetchall()
    return [(str(one), str(two), str(three)) for one, two, three in rows]
