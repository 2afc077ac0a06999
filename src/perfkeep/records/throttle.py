"""PERF_RECORD_THROTTLE: the kernel stopped an event until the next tick, as it sampled too often. Pure.

A stopped event neither samples nor counts. The kernel keeps no counter of it; only the rings tell.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence

from perfkeep.records.writers import Writers

#: (number of the event, CPU; -1: the record does not say) → times.
Throttled = Counter[tuple[int, int]]

_ID = struct.Struct("=Q")
_ID_AT = 16  # behind the header and the time


def throttled(records: Iterable[memoryview], writers: Writers) -> Throttled:
    """Count records of this type by the event that was stopped and its CPU."""
    found: Throttled = Counter()
    for record in records:
        if len(record) < _ID_AT + _ID.size:
            continue
        number = writers.event(_ID.unpack_from(record, _ID_AT)[0])
        if number is None:
            number = writers.of(record)
        if number is not None:
            cpu = writers.layouts[number].cpu(record)
            found[number, -1 if cpu is None else cpu] += 1
    return found


def by_name(counts: Throttled, names: Sequence[str]) -> dict[tuple[str, int], int]:
    """The same by the event's name and the CPU; events of one name are added up."""
    named: dict[tuple[str, int], int] = {}
    for (number, cpu), count in counts.items():
        key = names[number], cpu
        named[key] = named.get(key, 0) + count
    return named


def sentences(found: Throttled, names: Sequence[str]) -> list[str]:
    """Describe what is missing from the samples, a sentence for each event."""
    said = []
    for number, name in enumerate(names):
        times = {cpu: count for (event, cpu), count in sorted(found.items()) if event == number}
        if times:
            where = ", ".join(
                f"{count:,} times" + (f" on CPU {cpu}" if cpu >= 0 else "")
                for cpu, count in times.items()
            )
            said.append(f"the kernel throttled {name}, so samples are missing: {where}")
    return said
