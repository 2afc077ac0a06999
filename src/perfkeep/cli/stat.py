"""`perfkeep stat`: the counts of a recording."""

from __future__ import annotations

import argparse

from perfkeep.cli.common import print_json, recording_name, say, utc
from perfkeep.cli.table import plain, render
from perfkeep.client.recording import Recording
from perfkeep.wire.messages import EventCounts, Gap

#: (id of an event, CPU) → times.
Throttled = dict[tuple[int, int], int]

_FIELDS = ("value", "time_enabled_ns", "time_running_ns", "lost")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=recording_name)
    parser.add_argument(
        "--throttled",
        action="store_true",
        help="read the rings, and tell how often the kernel stopped an event that sampled too often",
    )
    parser.add_argument("--json", action="store_true", help="for programs: docs/json.md")


def _numbers(counts: object) -> dict[str, int]:
    return {field: getattr(counts, field) for field in _FIELDS}


def _row(event: EventCounts) -> list[str]:
    count = "<not counted>" if event.estimate is None else f"{event.estimate:,}"
    note = f"({event.counted:.1%} counted)" if 0 < event.counted < 1 else ""
    return [count, event.event, f"{event.time_enabled_ns / 1e9:.3f}", f"{event.lost:,}", note]


def run(options: argparse.Namespace) -> int:
    recording = Recording(options.name)
    throttled = recording.throttled() if options.throttled else None
    stat = recording.stat()
    if options.json:
        events = [_document(event, throttled) for event in stat.events]
        print_json({"name": stat.name, "events": events})
    else:
        print(_table(stat.events, throttled))
        _note_restart(recording.info.gaps)
    return 0


def _note_restart(gaps: list[Gap]) -> None:
    """Counts begin again when both daemons died; the numbers alone do not show it."""
    for gap in gaps[::-1]:
        if gap.cpus is None and gap.until_ns is not None:
            say(f"the counts begin at {utc(gap.until_ns)}: {plain(gap.why)}")
            return


def _table(events: list[EventCounts], throttled: Throttled | None) -> str:
    header, rows = ["COUNT", "EVENT", "CPU-SECONDS", "LOST", ""], [_row(event) for event in events]
    if throttled is not None:
        header.insert(-1, "THROTTLED")
        for row, event in zip(rows, events, strict=True):
            row.insert(-1, f"{_times(throttled, event.id):,}")
    return render(header, rows, right=(0, 2, 3) if throttled is None else (0, 2, 3, 4))


def _times(throttled: Throttled, event: int) -> int:
    return sum(count for (id, _), count in throttled.items() if id == event)


def _document(event: EventCounts, throttled: Throttled | None) -> dict[str, object]:
    per_cpu = {str(counts.cpu): _numbers(counts) for counts in event.per_cpu}
    document: dict[str, object] = {
        "id": event.id,
        "event": event.event,
        "enabled": event.enabled.replace("_", " "),
        **_numbers(event),
        "counted": event.counted,
        "estimate": event.estimate,
        "per_cpu": per_cpu,
    }
    if throttled is not None:
        document["throttled"] = _times(throttled, event.id)
        for cpu, numbers in per_cpu.items():
            numbers["throttled"] = throttled.get((event.id, int(cpu)), 0)
    return document
