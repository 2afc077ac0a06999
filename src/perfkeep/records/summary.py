"""Samples and CPU time by process. Plain Python, one pass."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from perfkeep.abi.perf_event import Attr
from perfkeep.abi.records import Record
from perfkeep.records.sample import Layout

_TWO = struct.Struct("=II")
_WORD = struct.Struct("=Q")


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
    entries = [(number, Layout(source.attr)) for number, source in enumerate(known)]
    layouts = {id: entry for entry in entries for id in known[entry[0]].ids}
    only = entries[0] if len(entries) == 1 else None
    names: dict[int, str] = {0: "swapper"}
    parents: dict[int, int] = {}
    counts: dict[int, Counter[int]] = {}
    weights: dict[int, Counter[int]] = {}
    for kind, record in found:
        if kind == Record.COMM and len(record) > 16:
            pid, tid = _TWO.unpack_from(record, 8)
            if pid == tid:
                names[pid] = bytes(record[16:]).split(b"\0")[0].decode(errors="replace")
        elif kind == Record.FORK and len(record) >= 16:
            pid, parent = _TWO.unpack_from(record, 8)
            if pid != parent:  # a thread has its process for a parent
                parents[pid] = parent
        elif kind == Record.SAMPLE and len(record) >= 16:
            entry = only or layouts.get(_WORD.unpack_from(record, 8)[0])
            if entry is not None:
                number, layout = entry
                process = layout.pid(record)
                if process is not None:
                    weight = 1 if count_samples else layout.period(record)
                    counts.setdefault(process, Counter())[number] += 1
                    weights.setdefault(process, Counter())[number] += weight
    shares = _shares(known, weights)

    def called(pid: int) -> str:
        """By its own name, or the one that it has from its parent."""
        known, seen = pid, set[int]()
        while known not in names and known in parents and known not in seen:
            seen.add(known)
            known = parents[known]
        return names.get(known, f":{pid}")

    rows = [
        Row(called(pid), pid, [own[number] for number in range(len(known))], shares.get(pid))
        for pid, own in counts.items()
    ]
    return sorted(rows, key=lambda row: (-(row.share or 0), -sum(row.samples)))


def _shares(sources: list[Source], weights: dict[int, Counter[int]]) -> dict[int, float]:
    """Shares of CPU time by process: of ns where clocks have samples, otherwise of cycles."""
    clocks = {number for number, source in enumerate(sources) if source.attr.is_clock}
    others = {number for number, source in enumerate(sources) if source.attr.shows_cpu_time}
    for numbers in (clocks, others - clocks):
        times = {pid: sum(own[number] for number in numbers) for pid, own in weights.items()}
        if total := sum(times.values()):
            return {pid: time / total for pid, time in times.items()}
    return {}
