"""`perfkeep enable`: let a recording go on."""

from __future__ import annotations

import argparse

from perfkeep.cli.common import recording_name
from perfkeep.client.recording import Recording


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=recording_name)


def run(options: argparse.Namespace) -> int:
    Recording(options.name).enable()
    print(f"{options.name} is enabled")
    return 0
