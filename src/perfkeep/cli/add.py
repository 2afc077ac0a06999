"""`perfkeep add`: let events join a recording."""

from __future__ import annotations

import argparse

from perfkeep.cli.common import (
    add_events,
    need_events,
    print_events,
    raise_fd_limit,
    recording_name,
    say_note,
)
from perfkeep.client.recording import Recording


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=recording_name)
    add_events(parser)


def run(options: argparse.Namespace) -> int:
    raise_fd_limit()
    recording = Recording(options.name)
    ids = recording.add(need_events(options), call_chains=options.call_graph)
    for note in recording.notes:
        say_note(note)
    print_events(f"{options.name} now records", [e for e in recording.info.events if e.id in ids])
    return 0
