"""What threads were called when a sample was taken. Pure; needs numpy.

COMM says so, and FORK: a new thread is called what its parent is. Records that a snapshot writes of
what it found in /proc carry no time, and count from the beginning.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfkeep.abi.records import Record

Ints = NDArray[Any]

_COMM = struct.Struct("=II")
_FORK = struct.Struct("=IIIIQ")
_PID_MAX = 1 << 22  # PID_MAX_LIMIT


class Tasks:
    """Names by thread and time.

    Args:
        found: (type, bytes, time in ns) of COMM and FORK records, in the order of time; others do
            not matter.
    """

    def __init__(self, found: Iterable[tuple[int, memoryview, int]]) -> None:
        #: Each name once; the first is that of the idle task.
        self.names: list[str] = ["swapper"]
        self._codes = {"swapper": 0}
        self._events: list[tuple[int, int, int]] = [(0, 0, 0)]  # tid, time, code
        now: dict[int, int] = {0: 0}
        for kind, record, time in found:
            if kind == Record.COMM and len(record) > 16:
                _, tid = _COMM.unpack_from(record, 8)
                text = bytes(record[16:]).split(b"\0")[0].decode(errors="replace")
                now[tid] = self._code(text)
                self._events.append((tid, time, now[tid]))
            elif kind == Record.FORK and len(record) >= 32:
                _, _, tid, parent, time = _FORK.unpack_from(record, 8)
                if parent in now:
                    now[tid] = now[parent]
                    self._events.append((tid, time, now[tid]))

    def _code(self, name: str) -> int:
        if name not in self._codes:
            self._codes[name] = len(self.names)
            self.names.append(name)
        return self._codes[name]

    def codes(self, tids: Ints, times: Ints | None) -> tuple[Ints, list[str]]:
        """For each sample the number of its thread's name, and the names. A thread that nobody
        named is called ":" and its number, as perf does it.
        """
        events = np.array(sorted(self._events, key=lambda one: one[:2]), "i8").reshape(-1, 3)
        known, begin = np.unique(events[:, 0], return_index=True)
        wide = tids.astype("i8")
        rank, there = self._ranks(known, wide)
        row = begin[rank]
        if times is not None and len(times) and len(events) > len(known):
            row = np.maximum(row, self._before(events, known, rank, times))
        names = list(self.names)
        codes = events[row, 2]
        if not there.all():
            strangers, inverse = np.unique(wide[~there], return_inverse=True)
            codes[~there] = inverse + len(names)
            names += [f":{tid}" for tid in strangers.tolist()]
        return codes, names

    @staticmethod
    def _ranks(known: Ints, tids: Ints) -> tuple[Ints, Ints]:
        """Which of the known threads each is, and whether it is one."""
        most = int(tids.max(initial=0))
        if int(tids.min(initial=0)) >= 0 and most <= _PID_MAX:
            table = np.full(most + 1, -1, "i8")
            inside = known[known <= most]
            table[inside] = np.arange(len(inside))
            found = table[tids]
            there = found >= 0
            return np.maximum(found, 0), there
        rank = np.minimum(np.searchsorted(known, tids), len(known) - 1)
        return rank, known[rank] == tids

    @staticmethod
    def _before(events: Ints, known: Ints, rank: Ints, times: Ints) -> Ints:
        """The last event of each sample's thread at or before it, or one of another thread before
        all of its own.
        """
        first, last = int(times.min()), int(times.max())
        # Thread and time become one number that can be looked up; coarser if it would not fit.
        shift = max(0, (len(known) * (last - first + 2)).bit_length() - 62)
        span = ((last - first) >> shift) + 2

        def key(ranks: Ints, at: Ints) -> Ints:
            clipped = np.clip(at, first - 1, last) - (first - 1)
            keys: Ints = ranks * span + (clipped >> shift)
            return keys

        table = key(np.searchsorted(known, events[:, 0]), events[:, 1])
        found: Ints = np.searchsorted(table, key(rank, times), side="right") - 1
        return found
