"""As-of lookup: the value in force for a task at a given time, for many at once. Needs numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfkeep import records

Ints = NDArray[Any]

_LAST = 2**63 - 1


class Timeline:
    """
    Args:
        changes: (whose, ns, value >= 0): in force from then on. A change without a time has ns 0, and
            so is in force from the beginning.
    """

    def __init__(self, changes: Sequence[tuple[int, int, int]]) -> None:
        # A file may say any time.
        bounded = [(whose, min(ns, _LAST), value) for whose, ns, value in changes]
        self._changes = np.array(sorted(bounded, key=lambda one: one[:2]), "i8")

    def values(self, ids: Ints, times: Ints | None) -> Ints:
        """The value in force at each time; -1: none is known.

        Args:
            times: ns; None: not recorded, so the first value of each id is taken.
        """
        found = np.empty(len(ids), "i8")
        at = b"" if times is None else np.ascontiguousarray(times, "i8")
        records.latest(self._changes, np.ascontiguousarray(ids, "i8"), at, found)
        return found
