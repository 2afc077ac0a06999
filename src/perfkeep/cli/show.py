"""`perfkeep show`: all that is known of one recording."""

from __future__ import annotations

import argparse

from perfkeep.cli.common import age, as_json, group_name, print_json, recording_name, user_name, utc
from perfkeep.cli.table import render
from perfkeep.client.recording import Recording
from perfkeep.kernel.cpus import format_list
from perfkeep.units import format_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=recording_name)
    parser.add_argument("--json", action="store_true", help="for programs: docs/json.md")


def run(options: argparse.Namespace) -> int:
    info = Recording(options.name).info
    if options.json:
        print_json({**as_json(info), "target": info.target})
        return 0
    owner = info.owner
    print(f"name     {info.name} (id {info.id}), {info.state}")
    print(f"created  {utc(info.created_ns)}, {age(info.created_ns)} ago")
    print(f"owner    {user_name(owner.uid)}, group {group_name(info.gid)}, mode {info.mode:04o}")
    print(f"by       pid {owner.pid}: {owner.command}")
    print(f"records  {info.target}")
    full = "" if info.ring.overwrites else ", stops when it is full"
    print(f"ring     {format_size(info.ring.bytes_per_cpu)} per CPU, {info.ring.kind}{full}")
    rows = [[str(e.id), format_list(e.cpus), e.event] for e in info.events]
    print(render(["ID", "CPUS", "EVENT"], rows, right=(0,)))
    return 0
