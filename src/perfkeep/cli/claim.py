"""`perfkeep claim`, `perfkeep stop`: end recordings."""

from __future__ import annotations

import argparse

from perfkeep.client.recording import Recording


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+")


def run(options: argparse.Namespace) -> int:
    for name in options.names:
        Recording(name).claim()
        print(f"{name} has ended")
    return 0
