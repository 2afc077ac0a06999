"""`perfkeep exec`: run a program that can use persistent events as if the kernel had them."""

from __future__ import annotations

import argparse
import errno

from perfkeep.cli.common import say

# As env(1), nice(1) and the shells have them.
_CANNOT_RUN, _NOT_FOUND = 126, 127


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "perfkeep exec [-h] [--system] [--no-mount] -- COMMAND [ARG ...]"
    parser.add_argument(
        "--no-mount",
        action="store_true",
        help="do not put the events into /sys for COMMAND by a mount namespace of its own",
    )
    parser.add_argument(
        "command", metavar="COMMAND", nargs=argparse.REMAINDER, help="and its arguments"
    )


def run(options: argparse.Namespace) -> int:
    from perfkeep.errors import UsageError
    from perfkeep.interposer import launcher
    from perfkeep.wire import instance

    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise UsageError(
            "no program was named", hint="perfkeep exec -- perf stat -e persistent/NAME/ -a"
        )
    defaults = launcher.prepare(instance.current(), may_mount=not options.no_mount)
    try:
        launcher.become(command, defaults, _instance(options.system))
    except OSError as error:
        say(f"{command[0]}: {error.strerror}")
        return _NOT_FOUND if error.errno == errno.ENOENT else _CANNOT_RUN


def _instance(system: bool) -> dict[str, str]:
    """The environment by which a perfkeep that COMMAND starts finds the same instance."""
    from perfkeep.wire.instance import SYSTEM

    return {"PERFKEEP_SOCKET": SYSTEM} if system else {}
