"""`perfkeep stat`: the counts of a recording."""

from __future__ import annotations

import argparse
from collections import Counter

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
        help="read the rings as well, which takes longer, for how often the kernel stopped an event that "
        "sampled too often; its count is wrong, and nothing else says so but for a clock's",
    )
    parser.add_argument("--json", action="store_true", help="for programs: docs/json.md")


def _numbers(counts: object) -> dict[str, int]:
    return {field: getattr(counts, field) for field in _FIELDS}


def _count(event: EventCounts) -> tuple[str, str]:
    """The count and its unit as perf stat prints them: clocks in msec, events without a unit."""
    count = event.estimate if event.timed else event.value
    if count is None:
        return "<not counted>", ""
    if event.unit == "ns":
        return f"{count / 1e6:,.2f}", "msec"
    return f"{count:,}", ""


def _share(event: EventCounts) -> str:
    if event.counted is None:
        return "(for an unknown share of the time)"
    return f"({event.counted:.1%} counted)" if 0 < event.counted < 1 else ""


def _row(event: EventCounts) -> list[str]:
    return [
        *_count(event),
        event.event,
        f"{event.time_enabled_ns / 1e9:.3f}" if event.timed else "-",
        f"{event.lost:,}",
        _share(event),
    ]


def run(options: argparse.Namespace) -> int:
    recording = Recording(options.name)
    throttled = recording.throttled() if options.throttled else None
    stat = recording.stat()
    if options.json:
        events = [_document(event, throttled) for event in stat.events]
        print_json({"name": stat.name, "events": events})
    else:
        print(_table(stat.events, throttled))
        for event in filter(_is_off, stat.events):
            say(_off(event))
        info = recording.info
        _note_restart(info.gaps)
        if info.problem:
            say(plain(info.problem))
    return 0


#: More than what passes between the reading of two counters.
_OFF = 0.05


def _is_off(event: EventCounts) -> bool:
    """True if a clock's count is not the time that it ran: the cheap sign of throttling."""
    ran = event.time_running_ns
    return event.unit == "ns" and ran > 0 and abs(event.value - ran) > _OFF * ran


def _off(event: EventCounts) -> str:
    return (
        f"{plain(event.event)} counted {event.value / 1e6:,.2f} msec in the {event.time_running_ns / 1e6:,.2f} "
        "msec that it ran: its count is wrong, as it is when the kernel throttles a clock"
    )


def _note_restart(gaps: list[Gap]) -> None:
    """Counts begin again when both daemons died; the numbers alone do not show it."""
    for gap in gaps[::-1]:
        if gap.cpus is None and gap.until_ns is not None:
            say(f"the counts begin at {utc(gap.until_ns)}: {plain(gap.why)}")
            return


def _table(events: list[EventCounts], throttled: Throttled | None) -> str:
    header, rows = (
        ["COUNT", "", "EVENT", "CPU-SECONDS", "LOST", ""],
        [_row(event) for event in events],
    )
    specs = Counter(event.event for event in events)
    for row, event in zip(rows, events, strict=True):
        if specs[event.event] > 1:  # they may differ in filter or call chains
            row[2] += f" (id {event.id})"
    if throttled is not None:
        header.insert(-1, "THROTTLED")
        for row, event in zip(rows, events, strict=True):
            row.insert(-1, f"{_times(throttled, event.id):,}")
    return render(header, rows, right=(0, 3, 4) if throttled is None else (0, 3, 4, 5))


def _times(throttled: Throttled, event: int) -> int:
    return sum(count for (id, _), count in throttled.items() if id == event)


def _document(event: EventCounts, throttled: Throttled | None) -> dict[str, object]:
    per_cpu = {str(counts.cpu): _numbers(counts) for counts in event.per_cpu}
    document: dict[str, object] = {
        "id": event.id,
        "event": event.event,
        "enabled": event.enabled.replace("_", " "),
        "unit": event.unit,
        **_numbers(event),
        "counted": event.counted,
        "estimate": event.estimate,
        "per_cpu": per_cpu,
    }
    if not event.timed:
        document.update(time_enabled_ns=None, time_running_ns=None)
    if throttled is not None:
        document["throttled"] = _times(throttled, event.id)
        for cpu, numbers in per_cpu.items():
            numbers["throttled"] = throttled.get((event.id, int(cpu)), 0)
    return document
