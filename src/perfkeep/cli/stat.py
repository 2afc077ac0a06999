"""`perfkeep stat`: the counts of a recording."""

from __future__ import annotations

import argparse

from perfkeep.cli.common import print_json, recording_name
from perfkeep.cli.table import render
from perfkeep.client.recording import Recording
from perfkeep.wire.messages import Counts, EventCounts

_FIELDS = ("value", "time_enabled_ns", "time_running_ns", "lost")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=recording_name)
    parser.add_argument("--json", action="store_true", help="for programs: docs/json.md")


def _numbers(counts: Counts) -> dict[str, int]:
    return {field: getattr(counts, field) for field in _FIELDS}


def _sums(event: EventCounts) -> dict[str, int]:
    return {field: sum(getattr(cpu, field) for cpu in event.per_cpu) for field in _FIELDS}


def _row(event: EventCounts) -> list[str]:
    sums = _sums(event)
    enabled, running = sums["time_enabled_ns"], sums["time_running_ns"]
    share = running / enabled if enabled else 1.0
    # As perf stat does: what was not counted for want of a counter is estimated.
    scaled = round(sums["value"] / share) if share else 0
    note = "" if share > 0.9999 else f"({share:.1%} counted)"
    return [f"{scaled:,}", event.event, f"{enabled / 1e9:.3f}", f"{sums['lost']:,}", note]


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
            **_sums(event),
            "per_cpu": {str(cpu.cpu): _numbers(cpu) for cpu in event.per_cpu},
        }
        for event in stat.events
    ]
    print_json({"name": stat.name, "events": events})
    return 0
