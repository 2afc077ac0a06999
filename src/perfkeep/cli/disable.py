"""`perfkeep disable`: let a recording pause."""

from __future__ import annotations

import argparse

from perfkeep.cli.common import recording_name
from perfkeep.client.recording import Recording


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=recording_name)


def run(options: argparse.Namespace) -> int:
    Recording(options.name).disable()
    print(f"{options.name} is disabled; its rings keep what they hold")
    return 0
