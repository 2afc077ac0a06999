"""A tracepoint's own fields as columns. Pure; needs numpy."""

from __future__ import annotations

import numpy as np

from perfkeep.records.cells import Column, Ints, View, text_column
from perfkeep.records.tracepoint import Field

#: Columns of every table that has them, before a tracepoint's own.
CONTEXT = ("time", "cpu", "pid", "tid", "comm", "host", "wall")

_TAKEN = frozenset((*CONTEXT, "misc", "id", "ip", "period"))


def is_number(one: Field) -> bool:
    """An integer, or what says where something else lies."""
    return one.form == "int" or one.place != "here"


def number_type(one: Field) -> str:
    if one.form != "int":
        return "u4"
    return f"{'i' if one.signed else 'u'}{one.width}"


def column_name(one: Field) -> str:
    """Another one than the field's where that is what a context column is called."""
    return f"event_{one.name}" if one.name in _TAKEN else one.name


def field_column(view: View, one: Field, begin: Ints, sizes: Ints, number: Ints | None) -> Column:
    """One field of a tracepoint.

    Args:
        begin, sizes: of the samples' own bytes.
        number: what `is_number` lets expect.
    """
    name = column_name(one)
    if number is not None and one.form == "int":
        return Column(name, "int", number)
    at = begin + one.offset
    if number is None:
        lengths = np.full(len(at), one.size, "i8")
    else:
        lengths = (number >> np.uint32(16)).astype("i8")
        inside = (number & np.uint32(0xFFFF)).astype("i8")
        at = (begin if one.place == "data_loc" else at + 4) + inside
        room = begin + sizes - at
        lengths = np.where(room >= lengths, lengths, 0)
        at = np.where(room >= lengths, at, begin)
    if one.form == "text":
        return text_column(name, view.data, at, lengths)
    if one.form == "ints":
        type = f"{'i' if one.signed else 'u'}{one.width}"
        return view.lists(name, at, lengths // one.width, type)
    return view.blobs(name, at, lengths)
