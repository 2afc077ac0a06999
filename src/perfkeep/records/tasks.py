"""Names of threads at the time of a sample. Pure; needs numpy.

A COMM record names a thread, a FORK record gives a new thread the name of its parent. Records without
a time, as a snapshot writes of what it found in /proc, are in force from the beginning; all others
from their time on, so a sample before the first of them has no name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfkeep.abi.records import Record
from perfkeep.records.cells import Column, Texts
from perfkeep.records.timeline import Timeline
from perfkeep.records.unseen import NAME, is_unseen

Ints = NDArray[Any]

_COMM = struct.Struct("=II")
_FORK = struct.Struct("=IIII")


class Tasks:
    """Names by thread and time.

    Args:
        found: (type, bytes, time in ns) of COMM and FORK records, in the order of time; others do
            not matter.
    """

    def __init__(self, found: Iterable[tuple[int, memoryview, int]]) -> None:
        #: Each name once; the first is that of thread 0, the idle task.
        self.names: list[str] = ["swapper"]
        self._codes = {"swapper": 0}
        events = [(0, 0, 0)]  # tid, time, code
        now: dict[int, int] = {0: 0}
        for kind, record, time in found:
            if is_unseen(record):
                self.names[0] = NAME
            elif kind == Record.COMM and len(record) > 16:
                _, tid = _COMM.unpack_from(record, 8)
                text = bytes(record[16:]).split(b"\0")[0].decode(errors="replace")
                now[tid] = self._code(text)
                events.append((tid, time, now[tid]))
            elif kind == Record.FORK and len(record) >= 32:
                _, _, tid, parent = _FORK.unpack_from(record, 8)
                if parent and parent in now:
                    now[tid] = now[parent]
                    events.append((tid, time, now[tid]))
        self._timeline, self._texts = Timeline(events), Texts(self.names)

    def _code(self, name: str) -> int:
        if name not in self._codes:
            self._codes[name] = len(self.names)
            self.names.append(name)
        return self._codes[name]

    def column(self, name: str, tids: Ints, times: Ints | None) -> Column:
        """What the thread of each sample was called. A thread that nobody named is called ":" and
        its number, as perf does it.
        """
        codes, texts = self._timeline.values(tids, times), self._texts
        unnamed = codes < 0
        if unnamed.any():
            strangers, inverse = np.unique(tids[unnamed], return_inverse=True)
            codes[unnamed] = inverse + len(self.names)
            texts = Texts([*self.names, *(f":{tid}" for tid in strangers.tolist())])
        return texts.column(name, codes)
