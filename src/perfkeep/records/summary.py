"""Samples and CPU time by process. Plain Python, one pass."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import NamedTuple

from perfkeep.abi.perf_event import Attr
from perfkeep.abi.records import Record
from perfkeep.records.groups import carries_counts, parts
from perfkeep.records.unseen import NAME, is_unseen
from perfkeep.records.writers import Writers

_TWO = struct.Struct("=II")
# Plain numbers, which are compared faster.
_SAMPLE, _TASKS = int(Record.SAMPLE), (int(Record.COMM), int(Record.FORK))


class Source(NamedTuple):
    """One kind of event: its name, attr and the kernel's ids."""

    name: str
    attr: Attr
    ids: list[int]


class Row(NamedTuple):
    """One process.

    Attributes:
        samples: of each source, in the order of the sources.
        share: of the CPU time that clock events measured, 0 to 1; None: there are no such samples.
    """

    comm: str
    pid: int
    samples: list[int]
    share: float | None


def table(
    sources: Iterable[Source],
    found: Iterable[tuple[int, memoryview]],
    count_samples: bool = False,
) -> list[Row]:
    """Rows, the one with the largest share or most samples first.

    Args:
        found: (type, bytes) of each record.
        count_samples: shares count samples, instead of adding up their periods.
    """
    known = list(sources)
    writers = Writers((source.attr, source.ids) for source in known)
    tasks = _Names()
    # By process, for each source.
    counts: list[defaultdict[int, int]] = [defaultdict(int) for _ in known]
    weights: list[defaultdict[int, int]] = [defaultdict(int) for _ in known]
    counting = [carries_counts(source.attr) for source in known]
    counted: list[memoryview] = []
    for kind, record in found:
        if kind == _SAMPLE:
            number = writers.of_sample(record)
            if number is None:
                continue
            if counting[number]:
                counted.append(record)
                continue
            layout = writers.layouts[number]
            process = layout.pid(record)
            if process is not None:
                counts[number][process] += 1
                weights[number][process] += layout.period(record)
        elif kind in _TASKS:
            task_layout = writers.layout(record)
            tasks.add(kind, record, task_layout.time(record) if task_layout else None)
    for part in parts(enumerate(counted), writers)[0]:
        process = writers.layouts[part.writer].pid(counted[part.offset])
        if process is not None:
            counts[part.event][process] += 1
            weights[part.event][process] += part.period
    tasks.settle()
    shares = _shares(known, counts if count_samples else weights)
    rows = [
        Row(tasks.called(pid), _signed(pid), [own.get(pid, 0) for own in counts], shares.get(pid))
        for pid in dict.fromkeys(chain.from_iterable(counts))
    ]
    return sorted(rows, key=lambda row: (-(row.share or 0), -sum(row.samples)))


class _Names:
    """The last name of each process. Records of several CPUs lie in a file out of their order."""

    def __init__(self) -> None:
        self._records: list[tuple[int, int, memoryview]] = []
        self._names: dict[int, str] = {0: "swapper"}
        self._parents: dict[int, int] = {}

    def add(self, kind: int, record: memoryview, time: int | None) -> None:
        self._records.append((time or 0, kind, record))

    def settle(self) -> None:
        """Take the records into account that were added, in the order of time."""
        for _, kind, record in sorted(self._records, key=itemgetter(0)):
            if len(record) < 16:
                continue
            pid, other = _TWO.unpack_from(record, 8)
            if is_unseen(record):
                self._names[0] = NAME
            elif kind == Record.COMM and pid == other:
                self._names[pid] = bytes(record[16:]).split(b"\0")[0].decode(errors="replace")
            elif kind == Record.FORK and pid != other:  # a thread has its process for a parent
                self._parents[pid] = other
                if other and other in self._names:
                    self._names[pid] = self._names[other]

    def called(self, pid: int) -> str:
        """The process's own name, or the one that it has from its parent."""
        ancestor, seen = pid, set[int]()
        while ancestor not in self._names and self._parents.get(ancestor) and ancestor not in seen:
            seen.add(ancestor)
            ancestor = self._parents[ancestor]
        return self._names.get(ancestor, f":{_signed(pid)}")


def _signed(pid: int) -> int:
    """The pid as it is printed: that of a task that has gone is -1."""
    return pid - (pid >> 31 << 32)


def _shares(sources: list[Source], weights: Sequence[Mapping[int, int]]) -> dict[int, float]:
    """Shares of CPU time by process: of ns where clocks have samples, otherwise of cycles."""
    clocks = {number for number, source in enumerate(sources) if source.attr.is_clock}
    others = {number for number, source in enumerate(sources) if source.attr.shows_cpu_time}
    pids = list(dict.fromkeys(chain.from_iterable(weights)))
    for numbers in (clocks, others - clocks):
        times = {pid: sum(weights[number].get(pid, 0) for number in numbers) for pid in pids}
        if total := sum(times.values()):
            return {pid: time / total for pid, time in times.items()}
    return {}
