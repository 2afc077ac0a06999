"""`perfkeep daemon`: the instance as a service, in the foreground."""

from __future__ import annotations

import argparse
import os
import sys

import perfkeep
from perfkeep.errors import UsageError
from perfkeep.wire import instance


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--foreground", action="store_true", help="do not detach, and go on without recordings"
    )


def run(options: argparse.Namespace) -> int:
    if not options.foreground:
        raise UsageError(
            "every command starts the daemons when they are missing",
            hint="service managers and containers run perfkeep daemon --foreground",
        )
    where = instance.current()
    main = os.path.join(
        os.path.dirname(os.path.abspath(perfkeep.__file__)), "broker", "__main__.py"
    )
    # The process stays the same: a service manager knows it by its pid.
    os.execv(sys.executable, [sys.executable, "-I", main, where.socket, "--foreground", "1"])
