"""`perfkeep tail`: samples as they come, like `perf trace` of a recording that others may follow too."""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from typing import TYPE_CHECKING

from perfkeep.cli.common import say, say_error, say_hint
from perfkeep.cli.script import add_choice, chosen, text_of
from perfkeep.errors import Unreachable, UsageError

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of samples")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the recording")
    add_choice(parser)
    parser.add_argument(
        "-n", "--lines", type=_count, metavar="N", default=10,
        help="begin with the last N samples that are there (10)",
    )  # fmt: skip
    parser.add_argument(
        "--every", metavar="TIME", default="250ms", help="how often to look for more (250ms)"
    )
    parser.add_argument(
        "--for", dest="span", metavar="TIME", help="stop after so long; otherwise ^C does it"
    )


def _remark(data: Data) -> None:
    for text in data.throttling():
        say(text)


def run(options: argparse.Namespace) -> int:
    from perfkeep.client.following import Follower
    from perfkeep.units import format_size, parse_duration

    wanted = chosen(options)
    every = parse_duration(options.every) / 1e9
    if not 0.01 <= every <= 3600:
        raise UsageError("--every takes 10ms to 1h")
    until = time.monotonic() + parse_duration(options.span) / 1e9 if options.span else None
    with Follower(options.name) as follower:
        data = follower.poll()
        if data is not None:
            for text in deque(text_of(data, wanted, options.json), options.lines):
                sys.stdout.write(text)
            _remark(data)
        # What was gone before we came is not our loss.
        told, away = follower.lost_bytes, False
        while not follower.ended and (until is None or time.monotonic() < until):
            sys.stdout.flush()
            time.sleep(every)
            try:
                data, away = follower.poll(), False
            except Unreachable as error:
                if not away:
                    say_error(error)
                    say("what is recorded meanwhile is shown when it is back")
                away = True
                continue
            for text in text_of(data, wanted, options.json) if data is not None else ():
                sys.stdout.write(text)
            if data is not None:
                _remark(data)
            if follower.lost_bytes > told:
                say(
                    f"{format_size(follower.lost_bytes - told)} were overwritten before they were read"
                )
                say_hint("look more often with --every, or choose less")
                told = follower.lost_bytes
    if follower.ended:
        say(f"{options.name} has ended")
    return 0
