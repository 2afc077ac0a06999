"""`perfkeep claim`, `perfkeep stop`: end recordings."""

from __future__ import annotations

import argparse

from perfkeep.cli.common import recording_name
from perfkeep.client.recording import Recording
from perfkeep.errors import BrokerError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+", type=recording_name)


def run(options: argparse.Namespace) -> int:
    """One that cannot be ended stops none of the others, as with rm."""
    failed: list[BrokerError] = []
    for name in dict.fromkeys(options.names):
        try:
            Recording(name).claim()
            print(f"{name} has ended")
        except BrokerError as error:
            failed.append(error)
    if failed:
        raise BrokerError(failed[0].errno or 0, "; ".join(map(str, failed)))
    return 0
