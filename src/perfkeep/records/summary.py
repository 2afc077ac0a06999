"""What was running: samples by command and process. Plain Python, one pass."""

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
        samples: by the name of the event.
        share: of all samples of clock events, 0 to 1; None when there are none.
    """

    comm: str
    pid: int
    samples: dict[str, int]
    share: float | None


def table(sources: Iterable[Source], found: Iterable[tuple[int, memoryview]]) -> list[Row]:
    """Rows, the one with the largest share or most samples first.

    Args:
        found: (type, bytes) of each record.
    """
    known = list(sources)
    layouts = {id: (source.name, Layout(source.attr)) for source in known for id in source.ids}
    only = (known[0].name, Layout(known[0].attr)) if len(known) == 1 else None
    clocks = {source.name for source in known if source.attr.shows_cpu_time}
    names: dict[int, str] = {0: "swapper"}
    parents: dict[int, int] = {}
    counts: dict[int, Counter[str]] = {}
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
                process = entry[1].pid(record)
                if process is not None:
                    counts.setdefault(process, Counter())[entry[0]] += 1
    total = sum(n for one in counts.values() for name, n in one.items() if name in clocks)

    def called(pid: int) -> str:
        """By its own name, or the one that it has from its parent."""
        known, seen = pid, set[int]()
        while known not in names and known in parents and known not in seen:
            seen.add(known)
            known = parents[known]
        return names.get(known, f":{pid}")

    rows = [
        Row(
            called(pid),
            pid,
            dict(one),
            sum(one[name] for name in clocks) / total if total else None,
        )
        for pid, one in counts.items()
    ]
    return sorted(rows, key=lambda row: (-(row.share or 0), -sum(row.samples.values())))
