"""`perfkeep tail`: samples as they come, like `perf trace` of a recording that others may follow too."""

from __future__ import annotations

import argparse
import errno
import math
import sys
import time
from collections import deque
from typing import TYPE_CHECKING

from perfkeep.cli.common import say, say_error, say_hint
from perfkeep.cli.script import add_choice, chosen, text_of
from perfkeep.client.recording import Recording
from perfkeep.errors import BrokerError, Unreachable, UsageError
from perfkeep.units import format_size, parse_duration

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data
    from perfkeep.analysis.script import Wanted
    from perfkeep.client.following import Follower

#: Bytes of each ring that are read first: some hundred samples with call chains.
_REACH = 64 << 10


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
    wanted = chosen(options)
    every = parse_duration(options.every) / 1e9
    if not 0.01 <= every <= 3600:
        raise UsageError("--every takes 10ms to 1h")
    span = parse_duration(options.span) / 1e9 if options.span else math.inf
    follower, data, texts = _begin(options, wanted)
    with follower:
        sys.stdout.writelines(texts)
        if data is not None:
            _remark(data)
        _follow(follower, options, wanted, every, time.monotonic() + span)
    if follower.ended:
        say(f"{options.name} has ended")
    return 0


def _begin(options: argparse.Namespace, wanted: Wanted) -> tuple[Follower, Data | None, deque[str]]:
    """A reader that has read the last samples that are to be shown.

    Few are asked for, and the rings may hold millions: it reaches back only as far as it must.
    """
    from perfkeep.client.following import Follower

    reach = _REACH
    while True:
        follower = Follower(options.name, reach=reach)
        try:
            data = follower.poll()
            rows = () if data is None else text_of(data, wanted, options.json)
            texts = deque(rows, options.lines)
            rings = [place.size for place in follower.places.values()]
            if len(texts) == options.lines or reach >= max(rings, default=0):
                return follower, data, texts
        except BaseException:
            follower.close()
            raise
        follower.close()
        reach *= 8


class _FullRings:
    """Report once that nothing comes because rings are full; only rings that do not overwrite can be."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._reported = follower.overwrites
        self._lost = 0 if self._reported else self._count()

    def _count(self) -> int:
        """Samples that the kernel had no room for; 0: the recording has just ended."""
        try:
            stat = Recording(self._follower.name).stat()
        except BrokerError as error:
            if error.errno != errno.ENOENT:
                raise
            return 0
        return sum(event.lost for event in stat.events)

    def silent(self) -> None:
        """Look whether samples are lost instead, after a look that found none."""
        if self._reported or self._follower.ended:
            return
        if (lost := self._count()) > self._lost:
            self._reported = True
            say(
                f"the rings of {self._follower.name} do not overwrite and are full: the kernel had no room "
                f"for {lost:,} samples, and none will come before their reader, if it lives, makes room"
            )


def _follow(
    follower: Follower, options: argparse.Namespace, wanted: Wanted, every: float, until: float
) -> None:
    """Print what comes, until the recording or the time is over."""
    # What was overwritten before the reader came is not its loss.
    lost, away = follower.lost_bytes, False
    full = _FullRings(follower)
    while not follower.ended and (left := until - time.monotonic()) > 0:
        sys.stdout.flush()
        time.sleep(min(every, left))
        try:
            data, away = follower.poll(), False
            if data is None:
                full.silent()
        except Unreachable as error:
            if not away:
                say_error(error)
                say("what is recorded meanwhile is shown when it is back")
            away = True
            continue
        if data is not None:
            sys.stdout.writelines(text_of(data, wanted, options.json))
            _remark(data)
        if follower.lost_bytes > lost:
            say(f"{format_size(follower.lost_bytes - lost)} were overwritten before they were read")
            say_hint("look more often with --every, or choose less")
            lost = follower.lost_bytes
