"""Columns as Arrow arrays, which DuckDB, Polars, pandas and pyarrow take as they are.

Nothing is copied: an array points at the columns' own memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

import nanoarrow as na

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


def _array(column: Column) -> Any:
    values, rows = column.values, len(column)
    if column.form == "int":
        return na.c_array_from_buffers(_type(column), rows, [None, values])
    if column.form == "ints":
        child = na.c_array_from_buffers(_int(column), len(values), [None, _contiguous(values)])
        return na.c_array_from_buffers(
            _type(column), rows, [None, column.offsets], children=[child]
        )
    return na.c_array_from_buffers(_type(column), rows, [None, column.offsets, values])


def _contiguous(values: Any) -> Any:
    return values if values.flags.c_contiguous else values.copy()


def write_stream(table: ArrowTable, out: BinaryIO) -> None:
    """As an Arrow IPC stream."""
    from nanoarrow.ipc import StreamWriter

    with StreamWriter.from_writable(out) as writer:
        writer.write_stream(na.ArrayStream(table))


class ArrowTable:
    """Rows for any program that takes an Arrow stream (the PyCapsule interface): pyarrow.table(t),
    polars.from_arrow(t), duckdb by its name.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.column_names = [one.name for one in columns]
        self.num_rows = len(columns[0]) if columns else 0
        fields = {one.name: _type(one) for one in columns}
        self._array = na.c_array_from_buffers(
            na.struct(fields), self.num_rows, [None], children=[_array(one) for one in columns]
        )

    def __len__(self) -> int:
        return self.num_rows

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """An ArrowArrayStream capsule; the schema that is asked for is not regarded."""
        return na.ArrayStream(na.Array(self._array)).__arrow_c_stream__()

    def __arrow_c_schema__(self) -> object:
        return na.c_schema(self._array.schema).__arrow_c_schema__()

    def to_pylist(self) -> list[dict[str, Any]]:
        """Rows as dicts: for a few of them."""
        rows: list[dict[str, Any]] = na.Array(self._array).to_pylist()
        return rows

    def __repr__(self) -> str:
        return f"ArrowTable({self.num_rows} rows of {', '.join(self.column_names)})"
