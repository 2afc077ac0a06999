"""`perfkeep claim`, `perfkeep stop`, `perfkeep rm`: end recordings."""

from __future__ import annotations

import argparse
import os

from perfkeep.cli.common import recording_name, say_error
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
        raise UsageError(
            "--all and names exclude each other" if options.all else "no recording was named",
            hint="name the recordings to end, or all of yours with --all",
        )
    failed = False
    for name in dict.fromkeys(_mine() if options.all else options.names):
        try:
            Recording(name).claim()
            print(f"{name} has ended")
        except BrokerError as error:
            failed = True
            say_error(error)
    return 1 if failed else 0
