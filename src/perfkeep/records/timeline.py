"""What was so for a thread or a process at a moment: look-ups of many moments at once. Needs numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[Any]

_PID_MAX = 1 << 22  # PID_MAX_LIMIT


class Timeline:
    """
    Args:
        changes: (whose, ns, value): from then on it is so; the first of each counts from the
            beginning. At least one.
    """

    def __init__(self, changes: Sequence[tuple[int, int, int]]) -> None:
        self._changes = np.array(sorted(changes, key=lambda one: one[:2]), "i8").reshape(-1, 3)
        self._known, self._begin = np.unique(self._changes[:, 0], return_index=True)

    def values(self, ids: Ints, times: Ints | None) -> tuple[Ints, Ints]:
        """For each moment the value, and whether anything is known of that one at all."""
        rank, there = self._ranks(ids.astype("i8"))
        row = self._begin[rank]
        if times is not None and len(times) and len(self._changes) > len(self._known):
            row = np.maximum(row, self._before(rank, times.astype("i8")))
        return self._changes[row, 2], there

    def _ranks(self, ids: Ints) -> tuple[Ints, Ints]:
        """Which of those that are known each is, and whether it is one."""
        known, most = self._known, int(ids.max(initial=0))
        if int(ids.min(initial=0)) >= 0 and most <= _PID_MAX:
            table = np.full(most + 1, -1, "i8")
            inside = np.nonzero((known >= 0) & (known <= most))[0]
            table[known[inside]] = inside
            found = table[ids]
            there = found >= 0
            return np.maximum(found, 0), there
        rank = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        return rank, known[rank] == ids

    def _before(self, rank: Ints, times: Ints) -> Ints:
        """The last change of each one at or before a moment, or one of another before all of its
        own.
        """
        first, last = int(times.min()), int(times.max())
        # Whose and when become one number that can be looked up; coarser if it would not fit.
        shift = max(0, (len(self._known) * (last - first + 3)).bit_length() - 62)
        span = ((last - first + 2) >> shift) + 1

        def key(ranks: Ints, at: Ints) -> Ints:
            clipped = np.clip(at, first - 1, last + 1) - (first - 1)
            keys: Ints = ranks * span + (clipped >> shift)
            return keys

        changes = self._changes
        table = key(np.searchsorted(self._known, changes[:, 0]), changes[:, 1])
        found: Ints = np.searchsorted(table, key(rank, times), side="right") - 1
        return found
