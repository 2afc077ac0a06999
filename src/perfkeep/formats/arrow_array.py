"""Columns as Arrow arrays of structs, of Arrow's C interface; nothing is copied.

Source: "The Arrow C data interface" of the Arrow format. nanoarrow takes as long for this as reading
the samples does, so where the native core is, all structs of a batch and the addresses that they point
at are one copy of a block that was worked out before.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import nanoarrow as na
import numpy as np

from perfkeep import records
from perfkeep.records.cells import Column

#: Puts the array of a batch into the struct ArrowArray at an address.
Move = Callable[[Sequence[Column], int], None]


class ArrowArray(ctypes.Structure):
    _fields_ = (
        ("length", ctypes.c_int64), ("null_count", ctypes.c_int64), ("offset", ctypes.c_int64),
        ("n_buffers", ctypes.c_int64), ("n_children", ctypes.c_int64), ("buffers", ctypes.c_void_p),
        ("children", ctypes.c_void_p), ("dictionary", ctypes.c_void_p),
        ("release", ctypes.c_void_p), ("private_data", ctypes.c_void_p),
    )  # fmt: skip


_WORDS = ctypes.sizeof(ArrowArray) // 8
_N_BUFFERS, _N_CHILDREN, _BUFFERS, _CHILDREN = 3, 4, 5, 6
_pointer_of = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def mover(schema: Any, like: Sequence[Column]) -> Move:
    """
    Args:
        schema: nanoarrow's, of a struct.
        like: columns of the forms that each batch has.
    """
    return _Block(like).move if records.NATIVE else _Pure(schema).move


def _contiguous(values: Any) -> Any:
    return values if values.flags.c_contiguous else values.copy()


class _Pure:
    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._types = [schema.child(at) for at in range(schema.n_children)]

    def move(self, columns: Sequence[Column], to: int) -> None:
        rows = len(columns[0]) if columns else 0
        parts = [self._array(type, one) for type, one in zip(self._types, columns, strict=True)]
        array = na.c_array_from_buffers(self._schema, rows, [None], null_count=0, children=parts)
        capsule = array.__arrow_c_array__()[1]
        # Out of its capsule, which then has nothing to release.
        source = ArrowArray.from_address(_pointer_of(capsule, b"arrow_array"))
        ctypes.memmove(to, ctypes.addressof(source), ctypes.sizeof(ArrowArray))
        source.release = None

    @staticmethod
    def _array(type: Any, column: Column) -> Any:
        values, rows = _contiguous(column.values), len(column)
        if column.offsets is None:
            return na.c_array_from_buffers(type, rows, [None, values], null_count=0)
        if column.form != "ints":
            buffers = [None, column.offsets, values]
            return na.c_array_from_buffers(type, rows, buffers, null_count=0)
        items = na.c_array_from_buffers(type.child(0), len(values), [None, values], null_count=0)
        return na.c_array_from_buffers(
            type, rows, [None, column.offsets], null_count=0, children=[items]
        )


class _Block:
    def __init__(self, like: Sequence[Column]) -> None:
        forms = [one.form for one in like]
        lists = [at for at, form in enumerate(forms) if form == "ints"]
        structs = 1 + len(forms) + len(lists)
        #: Behind the structs: pointers to children, then to buffers.
        end = structs * _WORDS
        template: list[int] = [0] * end
        relative, lengths = list[int](), list[int]()
        buffers, own_lengths = list[int](), list[int]()

        def add(number: int, count: int, children: Sequence[int]) -> None:
            at = number * _WORDS
            template[at + _N_BUFFERS], template[at + _N_CHILDREN] = count, len(children)
            relative.extend((at + _BUFFERS, at + _CHILDREN))
            template[at + _CHILDREN] = 8 * len(template)
            relative.extend(range(len(template), len(template) + len(children)))
            template.extend(8 * _WORDS * child for child in children)
            template[at + _BUFFERS] = 8 * len(template)
            # The first is which values are there: all.
            buffers.extend(range(len(template) + 1, len(template) + count))
            template.extend([0] * count)

        add(0, 1, range(1, 1 + len(forms)))
        items = iter(range(1 + len(forms), structs))
        for number, form in enumerate(forms, 1):
            lengths.append(number * _WORDS)
            if form != "ints":
                add(number, 2 if form == "int" else 3, ())
                continue
            item = next(items)
            add(number, 2, [item])
            add(item, 2, ())
            own_lengths.append(item * _WORDS)
        self._structs = structs
        self._template = np.array(template, "i8")
        self._relative, self._buffers = np.array(relative), np.array(buffers, "i8")
        self._lengths, self._own_lengths = np.array([0, *lengths]), np.array(own_lengths, "i8")

    def move(self, columns: Sequence[Column], to: int) -> None:
        block = self._template.copy()
        block[self._relative] += block.ctypes.data
        arrays, own = list[Any](), list[int]()
        for one in columns:
            values = _contiguous(one.values)
            if one.offsets is not None:
                arrays.append(one.offsets)
                if one.form == "ints":
                    own.append(len(values))
            arrays.append(values)
        block[self._lengths] = len(columns[0]) if columns else 0
        block[self._own_lengths] = own
        block[self._buffers] = [one.__array_interface__["data"][0] for one in arrays]
        records.hold(block.ctypes.data, self._structs, (block, arrays))
        ctypes.memmove(to, block.ctypes.data, 8 * _WORDS)
