"""`perfkeep ls`: all recordings, a line each."""

from __future__ import annotations

import argparse
import os

from perfkeep.cli.common import age, as_json, missed, print_json, say, say_hint, user_name
from perfkeep.cli.table import render
from perfkeep.client.recording import infos
from perfkeep.kernel.cpus import format_list
from perfkeep.units import format_size
from perfkeep.wire.messages import RecordingInfo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs: docs/json.md")
    parser.add_argument(
        "--all", action="store_true", help="of every instance that answers, the system's and users'"
    )


def _row(info: RecordingInfo) -> list[str]:
    events = ",".join(event.event for event in info.events[:3])
    if len(info.events) > 3:
        events += f",… ({len(info.events)} kinds)"
    cpus = format_list({cpu for event in info.events for cpu in event.cpus})
    return [
        info.name,
        str(info.id),
        _state(info),
        age(info.created_ns),
        user_name(info.owner.uid),
        cpus,
        format_size(info.ring.bytes_per_cpu),
        str(info.target),
        events,
    ]


def _state(info: RecordingInfo) -> str:
    """With a mark when something is or was missing: show tells what."""
    return info.state + ("!" if missed(info) else "")


HEADER = ["NAME", "ID", "STATE", "AGE", "OWNER", "CPUS", "RING", "TARGET", "EVENTS"]


def _all(json: bool) -> int:
    from perfkeep.client.instances import others_too

    found = list(others_too())
    if json:
        print_json([{**as_json(info), "instance": where} for where, info in found])
    elif found:
        rows = [[where, *_row(info)] for where, info in found]
        print(render(["INSTANCE", *HEADER], rows, right=(2, 4, 7)))
    else:
        print("no recordings that you may see, in any instance")
    return 0


def run(options: argparse.Namespace) -> int:
    if options.all:
        return _all(options.json)
    found = infos()
    if options.json:
        print_json([as_json(info) for info in found])
    elif found:
        print(render(HEADER, [_row(info) for info in found], right=(1, 3, 6)))
        if marked := [info.name for info in found if missed(info)]:
            say(f"! marks recordings that missed something: {', '.join(marked)}")
            say_hint(f"perfkeep show {marked[0]}{' --system' * options.system}")
    else:
        print("no recordings")
        say_hint("perfkeep start NAME -e sched:sched_switch")
        _point_to_system(options.system)
    return 0


def _point_to_system(shown: bool) -> None:
    """Say to a user without recordings that there are others to be seen."""
    from perfkeep.client.instances import in_system

    if os.geteuid() and not shown and (count := len(in_system())):
        say(f"root's instance has {count} that you may see")
        say_hint("perfkeep ls --system")
