"""`perfkeep adopt`: take over the perf events of a running process, and leave."""

from __future__ import annotations

import argparse

from perfkeep.cli.common import (
    add_events,
    new_recording_name,
    print_made,
    process_id,
    raise_fd_limit,
    say_note,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "pid", metavar="PID", type=process_id, help="of the process, a perf record say"
    )
    parser.add_argument(
        "--name", type=new_recording_name, help="by which it is found again; its id unless given"
    )
    add_events(parser, filters=False)


def run(options: argparse.Namespace) -> int:
    from perfkeep.client.adopt import adopt

    raise_fd_limit()
    recording = adopt(options.pid, options.name, options.events or [])
    for note in recording.notes:
        say_note(note)
    print_made(recording.info)
    return 0
