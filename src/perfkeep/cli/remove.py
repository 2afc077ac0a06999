"""`perfkeep remove`: take events out of a recording."""

from __future__ import annotations

import argparse

from perfkeep.cli.common import add_events, need_events, recording_name
from perfkeep.client.recording import Recording, infos


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=recording_name)
    add_events(parser, filters=False)


def run(options: argparse.Namespace) -> int:
    events = [text for text, _ in need_events(options)]
    Recording(options.name).remove([int(one) if one.isdecimal() else one for one in events])
    if options.name not in [info.name for info in infos()]:
        print(f"{options.name} has ended: it had no other events")
    return 0
