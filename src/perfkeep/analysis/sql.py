"""DuckDB over the tables of a file, with views for the questions that are asked most."""

from __future__ import annotations

import copy
import errno
import re
import shutil
import tempfile
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

import duckdb
import numpy as np

from perfkeep.analysis.stacks import default_event, stacks
from perfkeep.analysis.switches import SWITCHES, Switches, followed_switches
from perfkeep.analysis.tree import tree
from perfkeep.analysis.views import is_refused, refused, views
from perfkeep.errors import PerfkeepError, UsageError
from perfkeep.formats.arrow import ArrowTable
from perfkeep.records.cells import Column, Texts

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data

Connection = duckdb.DuckDBPyConnection
#: What is wrong with a query, or came of it.
SqlError = duckdb.Error

_MOST = 2**63 - 1


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
    # A twin without this connection: what holds itself is never let go of before the end.
    twin = copy.copy(data)
    try:
        default_event(data)
        connection.register("flames", _Flames(twin))
    except PerfkeepError as error:
        for statement in refused("flames", str(error)):
            connection.execute(statement)
    if switches := followed_switches(data):
        connection.register(SWITCHES, Switches(twin, switches))
    for statement in views(data):
        connection.execute(statement)
    return connection


def relation(connection: Connection, query: str) -> Any:
    """DuckDB's relation with the rows of a query, computed already; None for a statement without
    rows.

    Raises:
        UsageError: DuckDB refuses the query, or fails at a row. What is done with the relation
            afterwards raises DuckDB's own errors.
        PerfkeepError: ENODATA: the data have not what a view needs.
    """
    try:
        lazy: Any = connection.sql(query)
        if lazy is None:
            return None
        # Before DuckDB 2, a relation keeps its result itself.
        newer = hasattr(type(lazy), "materialize")
        return lazy.materialize() if newer else lazy.execute()
    except SqlError as error:
        raise refusal(error) from error


def refusal(error: SqlError) -> PerfkeepError:
    """DuckDB's error as perfkeep's, without the class of error that its text begins with.

    Returns:
        UsageError: the query is wrong · PerfkeepError: ENODATA: the data do not answer it.
    """
    text = re.sub(r"^[A-Z][A-Za-z ]* Error: ", "", str(error))
    if isinstance(error, duckdb.InvalidInputException) and is_refused(text):
        return PerfkeepError(errno.ENODATA, text)
    return UsageError(text)


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
    """(table, column, type), in order, of what the file can answer."""
    rows: list[Any] = connection.sql(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_name NOT IN (SELECT view_name FROM duckdb_views() WHERE comment IS NOT NULL)"
        " ORDER BY table_name, ordinal_position"
    ).fetchall()
    return [(str(one), str(two), str(three)) for one, two, three in rows]
