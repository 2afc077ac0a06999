"""`perfkeep remove`: take events out of a recording."""

from __future__ import annotations

import argparse

from perfkeep.cli.common import add_events, need_events, print_events, recording_name
from perfkeep.client.recording import Recording, infos


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=recording_name)
    add_events(parser, filters=False)


def run(options: argparse.Namespace) -> int:
    events = [text for text, _ in need_events(options)]
    recording = Recording(options.name)
    before = recording.info.events
    recording.remove([int(event) if event.isdecimal() else event for event in events])
    rest = next((info.events for info in infos() if info.name == options.name), [])
    removed = [event for event in before if event.id not in {left.id for left in rest}]
    print_events(f"{options.name} no longer records", removed)
    if not rest:
        print(f"{options.name} has ended: it had no other events")
    return 0
