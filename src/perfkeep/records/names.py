"""Columns of names beside columns of numbers that have names. Pure; needs numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfkeep.records.cells import Column, Texts
from perfkeep.records.print_format import printer
from perfkeep.records.raw import column_name

Ints = NDArray[Any]
#: What `namer` gives.
Named = Callable[[Sequence[Column]], list[Column]]

#: Numbers below this are looked up in a table instead of sorted.
_SMALL = 1 << 16


def namer(format: str) -> Named:
    """What adds, behind each column whose numbers have names, one with these, which ends in `_name`;
    none where that is a column already.

    Args:
        format: the text of the tracepoint's format file; of other events "".
    """
    if not format:
        return list
    printed = printer(format)
    called = {
        column_name(one): printed.names[one.name]
        for one in printed.fields
        if one.name in printed.names
    }

    def named(columns: Sequence[Column]) -> list[Column]:
        taken = {one.name for one in columns}
        found = []
        for one in columns:
            found.append(one)
            name = f"{one.name}_name"
            if one.name in called and one.form == "int" and name not in taken:
                different, codes = _different(one.values)
                names = [called[one.name](value) for value in different.tolist()]
                found.append(Texts(names).column(name, codes))
        return found

    return named


def _different(values: Ints) -> tuple[Ints, Ints]:
    """Each value once, and of each row the number of its value."""
    if not len(values) or int(values.min()) < 0 or int(values.max()) >= _SMALL:
        different, codes = np.unique(values, return_inverse=True)
        return different, codes
    seen = np.zeros(_SMALL, bool)
    seen[values] = True
    numbers = np.cumsum(seen) - 1
    return np.nonzero(seen)[0], numbers[values]
