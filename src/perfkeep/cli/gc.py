"""`perfkeep gc`: end recordings that are over by policy."""

from __future__ import annotations

import argparse
from typing import cast

from perfkeep.client.connection import call
from perfkeep.wire import messages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", "--dry-run", action="store_true", help="only tell which")


def run(options: argparse.Namespace) -> int:
    found = cast(
        messages.Collected, call("Collect", messages.Collect(options.dry_run))[0]
    ).recordings
    for one in found:
        print(f"{one.name} {'would end' if options.dry_run else 'has ended'}: {one.why}")
    if not found:
        print("nothing is over")
    return 0
