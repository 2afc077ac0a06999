"""`perfkeep ls`: all recordings, a line each."""

from __future__ import annotations

import argparse

from perfkeep.cli.common import age, as_json, print_json, user_name
from perfkeep.cli.table import render
from perfkeep.client.recording import infos
from perfkeep.kernel.cpus import format_list
from perfkeep.units import format_size
from perfkeep.wire.messages import RecordingInfo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs: docs/json.md")


def _row(info: RecordingInfo) -> list[str]:
    events = ",".join(event.event for event in info.events[:3])
    if len(info.events) > 3:
        events += f",… ({len(info.events)})"
    cpus = format_list({cpu for event in info.events for cpu in event.cpus})
    return [
        info.name,
        str(info.id),
        info.state,
        age(info.created_ns),
        user_name(info.owner.uid),
        cpus,
        format_size(info.ring.bytes_per_cpu),
        info.target,
        events,
    ]


HEADER = ["NAME", "ID", "STATE", "AGE", "OWNER", "CPUS", "RING", "TARGET", "EVENTS"]


def run(options: argparse.Namespace) -> int:
    found = infos()
    if options.json:
        print_json([as_json(info) for info in found])
    elif found:
        print(render(HEADER, [_row(info) for info in found], right=(1, 3, 6)))
    else:
        print("no recordings; start one with: perfkeep start NAME -e sched:sched_switch")
    return 0
