"""`perfkeep show`: all that is known of one recording."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from perfkeep.cli.common import (
    age,
    as_json,
    group_name,
    print_json,
    recording_name,
    say_hint,
    span,
    user_name,
    utc,
)
from perfkeep.cli.table import plain, render
from perfkeep.client.recording import Recording
from perfkeep.kernel.cpus import format_list
from perfkeep.units import format_duration, format_size
from perfkeep.wire.messages import EventInfo, RecordingInfo, SpillInfo
from perfkeep.wire.structs import MOST_GAPS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=recording_name)
    parser.add_argument("--json", action="store_true", help="for programs: docs/json.md")


def _spill(spill: SpillInfo) -> str:
    words = f"{spill.directory}, every {format_duration(spill.every_ns)}"
    last = f"{age(spill.last_ns)} ago" if spill.last_ns else "not yet"
    return f"{words}, last {last}{'; ' + spill.problem if spill.problem else ''}"


def _events(events: Sequence[EventInfo], names: dict[int, list[str]]) -> str:
    """A table of them; columns that would be empty are left out.

    Args:
        names: in sysfs, by id.
    """
    rows = [
        [
            str(e.id),
            format_list(e.cpus),
            e.event,
            "yes" if e.call_chains else "",
            plain(e.filter or ""),
            _argument(names[e.id][0]) if e.id in names else "",
        ]
        for e in events
    ]
    header = ["ID", "CPUS", "EVENT", "CHAINS", "FILTER", "FOR PERF"]
    shown = [at for at in range(len(header)) if at < 3 or any(row[at] for row in rows)]
    return render(
        [header[at] for at in shown], [[row[at] for at in shown] for row in rows], right=(0,)
    )


def _argument(name: str) -> str:
    """The argument that stock perf takes, under `perfkeep exec` or after `perfkeep mount`."""
    return f"-e persistent/{name}/"


def _short(info: RecordingInfo, names: dict[int, list[str]]) -> str:
    """The argument for the first kind by the recording's name alone, if there is one."""
    for name in names.get(info.id, [])[1:]:
        return f"{_argument(name)}, the first of {len(info.events)}"
    return ""


def run(options: argparse.Namespace) -> int:
    from perfkeep.client import sysfs
    from perfkeep.wire import instance

    info = Recording(options.name).info
    if options.json:
        print_json(as_json(info))
        return 0
    owner = info.owner
    print(f"name     {info.name} (id {info.id}), {info.state}")
    print(f"created  {utc(info.created_ns)}, {age(info.created_ns)} ago")
    print(f"owner    {user_name(owner.uid)}, group {group_name(info.gid)}, mode {info.mode:04o}")
    print(f"by       pid {owner.pid}: {plain(owner.command)}")
    print(f"records  {plain(str(info.target))}")
    full = "" if info.ring.overwrites else ", stops when it is full"
    print(f"ring     {format_size(info.ring.bytes_per_cpu)} per CPU, {info.ring.kind}{full}")
    if info.expires_ns is not None:
        print(f"ends     {utc(info.expires_ns)}, in {span(info.expires_ns - time.time_ns())}")
    if info.offline:
        print(f"offline  CPU {format_list(info.offline)}: it goes on when they are back")
    if info.spill is not None:
        print(f"spill    {_spill(info.spill)}")
    if not info.sideband:
        print("names    of processes that live when a snapshot is taken; it has no sideband")
    if len(info.gaps) == MOST_GAPS:
        print(f"gap      the last {MOST_GAPS} are kept; there may have been earlier ones")
    for gap in info.gaps:
        on = "" if gap.cpus is None else f", CPU {format_list(gap.cpus)}"
        until = "now" if gap.until_ns is None else utc(gap.until_ns)
        print(f"gap      {utc(gap.since_ns)} to {until}{on}: {plain(gap.why)}")
    if info.problem:
        print(f"problem  {plain(info.problem)}")
        if info.target.program is not None:
            say_hint(f"perfkeep enable {info.name}")
    names = sysfs.names(instance.current())
    if short := _short(info, names):
        print(f"perf     {short}")
    print(_events(info.events, names))
    return 0
