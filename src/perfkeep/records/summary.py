"""Samples and CPU time by process. Plain Python, one pass."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from operator import itemgetter
from typing import NamedTuple

from perfkeep.abi.perf_event import Attr
from perfkeep.abi.records import Record
from perfkeep.records.groups import carries_counts, parts
from perfkeep.records.writers import Writers

_TWO = struct.Struct("=II")


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
    counts: dict[int, Counter[int]] = {}
    weights: dict[int, Counter[int]] = {}
    counted: list[memoryview] = []

    def add(number: int, process: int | None, period: int) -> None:
        if process is not None:
            counts.setdefault(process, Counter())[number] += 1
            weights.setdefault(process, Counter())[number] += 1 if count_samples else period

    for kind, record in found:
        if kind in (Record.COMM, Record.FORK):
            layout = writers.layout(record)
            tasks.add(kind, record, layout.time(record) if layout else None)
        elif kind == Record.SAMPLE and (number := writers.of(record)) is not None:
            layout = writers.layouts[number]
            if carries_counts(layout.attr):
                counted.append(record)
            else:
                add(number, layout.pid(record), layout.period(record))
    for part in parts(enumerate(counted), writers)[0]:
        add(part.event, writers.layouts[part.writer].pid(counted[part.offset]), part.period)
    tasks.settle()
    shares = _shares(known, weights)
    rows = [
        Row(tasks.called(pid), pid, [own[at] for at in range(len(known))], shares.get(pid))
        for pid, own in counts.items()
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
            if kind == Record.COMM and pid == other:
                self._names[pid] = bytes(record[16:]).split(b"\0")[0].decode(errors="replace")
            elif kind == Record.FORK and pid != other:  # a thread has its process for a parent
                self._parents[pid] = other
                if other in self._names:
                    self._names[pid] = self._names[other]

    def called(self, pid: int) -> str:
        """The process's own name, or the one that it has from its parent."""
        ancestor, seen = pid, set[int]()
        while ancestor not in self._names and ancestor in self._parents and ancestor not in seen:
            seen.add(ancestor)
            ancestor = self._parents[ancestor]
        return self._names.get(ancestor, f":{pid}")


def _shares(sources: list[Source], weights: dict[int, Counter[int]]) -> dict[int, float]:
    """Shares of CPU time by process: of ns where clocks have samples, otherwise of cycles."""
    clocks = {number for number, source in enumerate(sources) if source.attr.is_clock}
    others = {number for number, source in enumerate(sources) if source.attr.shows_cpu_time}
    for numbers in (clocks, others - clocks):
        times = {pid: sum(own[number] for number in numbers) for pid, own in weights.items()}
        if total := sum(times.values()):
            return {pid: time / total for pid, time in times.items()}
    return {}
