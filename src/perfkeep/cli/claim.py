"""`perfkeep claim`, `perfkeep stop`, `perfkeep rm`: end recordings."""

from __future__ import annotations

import argparse
import os

from perfkeep.cli.common import recording_name
from perfkeep.client.recording import Recording, infos
from perfkeep.errors import BrokerError, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="*", type=recording_name)
    parser.add_argument("--all", action="store_true", help="all that are yours")


def _mine() -> list[str]:
    """What root may end is everything, so there `all` means all."""
    uid = os.geteuid()
    return [info.name for info in infos() if uid in (0, info.owner.uid)]


def run(options: argparse.Namespace) -> int:
    """One that cannot be ended stops none of the others, as with rm."""
    if bool(options.names) == options.all:
        raise UsageError("name the recordings that shall end, or say --all")
    failed: list[BrokerError] = []
    for name in dict.fromkeys(_mine() if options.all else options.names):
        try:
            Recording(name).claim()
            print(f"{name} has ended")
        except BrokerError as error:
            failed.append(error)
    if failed:
        hint = failed[0].hint if len(failed) == 1 else ""
        raise BrokerError(failed[0].errno or 0, "; ".join(map(str, failed)), hint=hint)
    return 0
