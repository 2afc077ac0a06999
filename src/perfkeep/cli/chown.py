"""`perfkeep chown`: whose a recording is, and which group its mode is about."""

from __future__ import annotations

import argparse

from perfkeep.cli.common import recording_name
from perfkeep.client.recording import Recording
from perfkeep.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("owner", metavar="USER[:GROUP]", help=":GROUP changes only the group")
    parser.add_argument("names", metavar="NAME", nargs="+", type=recording_name)


def run(options: argparse.Namespace) -> int:
    owner, _, group = options.owner.partition(":")
    if not owner and not group:
        raise UsageError(
            "neither a user nor a group was named",
            hint="name a user, or a group behind a colon: alice, alice:tracing, :tracing",
        )
    for name in options.names:
        Recording(name).chown(owner or None, group or None)
        changes = [
            f"{word} {value}" for word, value in (("owner", owner), ("group", group)) if value
        ]
        print(f"{name} has {' and '.join(changes)}")
    return 0
