"""Columns as Arrow arrays, which DuckDB, Polars, pandas and pyarrow take as they are.

Nothing is copied: an array points at the columns' own memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, BinaryIO

import nanoarrow as na

from perfkeep.formats.arrow_stream import capsule
from perfkeep.records.cells import Column

_INTS = {
    "u1": na.uint8, "u2": na.uint16, "u4": na.uint32, "u8": na.uint64,
    "i1": na.int8, "i2": na.int16, "i4": na.int32, "i8": na.int64,
}  # fmt: skip


def _int(column: Column) -> Any:
    return _INTS[f"{column.values.dtype.kind}{column.values.dtype.itemsize}"]()


def _type(column: Column) -> Any:
    if column.name == "wall":
        return na.timestamp("ns")
    if column.form == "int":
        return _int(column)
    if column.form == "text":
        return na.large_string()
    return na.large_binary() if column.form == "bytes" else na.large_list(_int(column))


def write_stream(table: ArrowTable, out: BinaryIO) -> None:
    """As an Arrow IPC stream."""
    from nanoarrow.ipc import StreamWriter

    with StreamWriter.from_writable(out) as writer:
        writer.write_stream(na.ArrayStream(table))


class ArrowTable:
    """Rows for any program that takes an Arrow stream (the PyCapsule interface): pyarrow.table(t),
    polars.from_arrow(t), duckdb by its name. Each time that it is taken the rows are made anew,
    batch by batch.

    Args:
        like: columns of the same names and types as each batch has.
        batches: makes the rows; each batch has some.
    """

    def __init__(
        self, like: Sequence[Column], batches: Callable[[], Iterable[Sequence[Column]]]
    ) -> None:
        self.column_names = [one.name for one in like]
        self._like = [*like]
        self._schema = na.c_schema(na.struct({one.name: _type(one) for one in like}))
        self._batches = batches

    @classmethod
    def of(cls, columns: Sequence[Column]) -> ArrowTable:
        """Rows that are there already."""
        return cls(columns, lambda: [columns])

    @cached_property
    def num_rows(self) -> int:
        """All batches are made for it once."""
        return sum(len(columns[0]) for columns in self._batches() if columns)

    def __len__(self) -> int:
        return self.num_rows

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """An ArrowArrayStream capsule; the schema that is asked for is not regarded."""
        return capsule(self._schema, self._like, (one for one in self._batches()))

    def __arrow_c_schema__(self) -> object:
        return self._schema.__arrow_c_schema__()

    def to_pylist(self) -> list[dict[str, Any]]:
        """Rows as dicts: for a few of them."""
        return [row for array in na.ArrayStream(self) for row in array.to_pylist()]

    def __repr__(self) -> str:
        return f"ArrowTable(of {', '.join(self.column_names)})"
