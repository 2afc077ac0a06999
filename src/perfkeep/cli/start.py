"""`perfkeep start`: make a recording, and leave."""

from __future__ import annotations

import argparse

from perfkeep.cli.common import (
    add_access,
    add_events,
    mode,
    need_events,
    new_recording_name,
    print_made,
    process_id,
    raise_fd_limit,
    say_note,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", type=new_recording_name, help="by which it is found again"
    )
    add_events(parser)
    parser.add_argument("-C", "--cpu", metavar="CPUS", help="only these CPUs: 0-3,5")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("-p", "--pid", type=process_id, help="only this process, and what it forks")
    target.add_argument("--cgroup", metavar="PATH", help="only the tasks of this cgroup")
    parser.add_argument("--ring", metavar="SIZE", help="of history per CPU; 8M unless given")
    add_access(parser)
    parser.add_argument("--ttl", metavar="TIME", help="it ends by itself after this long: 1h")
    parser.add_argument(
        "--spill", metavar="DIR", help="keep a copy of the rings there, for perfkeep recover"
    )
    parser.add_argument(
        "--spill-every", metavar="TIME", help="how old that copy may be; 5s unless given"
    )
    parser.add_argument(
        "--no-sideband", action="store_true", help="do not follow which processes come and go"
    )


def run(options: argparse.Namespace) -> int:
    from perfkeep.client.recording import start
    from perfkeep.errors import UsageError
    from perfkeep.kernel.cpus import parse_list

    if options.cgroup == "":
        raise UsageError("no cgroup was named", hint="--cgroup / is the one that holds all tasks")
    raise_fd_limit()
    recording = start(
        options.name,
        need_events(options),
        cpus=None if options.cpu is None else parse_list(options.cpu),
        pid=options.pid,
        cgroup=options.cgroup,
        ring=options.ring,
        call_chains=options.call_graph,
        owner=options.owner,
        group=options.group,
        mode=None if options.mode is None else mode(options.mode),
        ttl=options.ttl,
        spill=options.spill,
        spill_every=options.spill_every,
        sideband=not options.no_sideband,
    )
    for note in recording.notes:
        say_note(note)
    print_made(recording.info, last=" --last 10s")
    return 0
