"""`perfkeep stat`: the counts of a recording."""

from __future__ import annotations

import argparse

from perfkeep.cli.common import print_json, recording_name
from perfkeep.cli.table import render
from perfkeep.client.recording import Recording
from perfkeep.wire.messages import EventCounts

_FIELDS = ("value", "time_enabled_ns", "time_running_ns", "lost")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=recording_name)
    parser.add_argument("--json", action="store_true", help="for programs: docs/json.md")


def _numbers(counts: object) -> dict[str, int]:
    return {field: getattr(counts, field) for field in _FIELDS}


def _row(event: EventCounts) -> list[str]:
    count = "<not counted>" if event.estimate is None else f"{event.estimate:,}"
    note = f"({event.counted:.1%} counted)" if 0 < event.counted < 1 else ""
    return [count, event.event, f"{event.time_enabled_ns / 1e9:.3f}", f"{event.lost:,}", note]


def run(options: argparse.Namespace) -> int:
    stat = Recording(options.name).stat()
    if not options.json:
        rows = [_row(event) for event in stat.events]
        print(render(["COUNT", "EVENT", "CPU-SECONDS", "LOST", ""], rows, right=(0, 2, 3)))
        return 0
    events = [
        {
            "id": event.id,
            "event": event.event,
            "enabled": event.enabled.replace("_", " "),
            **_numbers(event),
            "counted": event.counted,
            "estimate": event.estimate,
            "per_cpu": {str(cpu.cpu): _numbers(cpu) for cpu in event.per_cpu},
        }
        for event in stat.events
    ]
    print_json({"name": stat.name, "events": events})
    return 0
