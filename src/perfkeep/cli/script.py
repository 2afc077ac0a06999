"""`perfkeep script`: samples one by one, as text like that of `perf script`, or as JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from perfkeep.cli.common import add_source, printable, say
from perfkeep.errors import UsageError

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data
    from perfkeep.analysis.script import Wanted


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of samples")
    return int(text)


def _ids(text: str) -> list[int]:
    words = text.split(",")
    if not all(one.removeprefix("-").isdecimal() and len(one) < 12 for one in words):
        raise argparse.ArgumentTypeError(f"{text!r} are no ids; write a list like 1,4321")
    return [int(one) for one in words]


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Which samples, and what of them."""
    parser.add_argument(
        "-F", "--fields", metavar="FIELDS",
        help="what to show, like comm,tid,time,event,trace; or changes like +pid,-period",
    )  # fmt: skip
    parser.add_argument(
        "-e", "--event", metavar="EVENT", action="append", default=[],
        help="only samples of this event, as it is called or its table is; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--comm", metavar="NAMES", action="append",
        help="only of threads that are called so; may be given again",
    )  # fmt: skip
    parser.add_argument("--pid", metavar="PIDS", type=_ids, help="only of these processes")
    parser.add_argument("--tid", metavar="TIDS", type=_ids, help="only of these threads")
    parser.add_argument("-C", "--cpu", metavar="CPUS", help="only on these CPUs: 0-3,5")
    parser.add_argument("--ns", action="store_true", help="show times in nanoseconds")
    parser.add_argument("-G", "--hide-call-graph", action="store_true", help="show no call chains")
    parser.add_argument("--json", action="store_true", help="an object a line, for programs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    add_choice(parser)
    parser.add_argument("-n", "--limit", type=_count, metavar="N", help="only the first N samples")


def chosen(options: argparse.Namespace) -> Wanted:
    """What `add_choice` was answered.

    Raises:
        UsageError: what cannot be at once; no CPUs.
    """
    if options.json and (options.fields or options.ns):
        raise UsageError(
            "--json has all fields, and times in nanoseconds", hint="leave out -F and --ns"
        )
    from perfkeep.analysis.script import Wanted
    from perfkeep.kernel.cpus import parse_list

    only: dict[str, list[int] | list[str]] = {}
    if options.comm is not None:
        only["comm"] = options.comm
    if options.cpu is not None:
        only["cpu"] = list(parse_list(options.cpu))
    only |= {one: getattr(options, one) for one in ("pid", "tid") if getattr(options, one)}
    return Wanted(options.fields, options.event, only, options.ns, not options.hide_call_graph)


def text_of(data: Data, wanted: Wanted, json: bool) -> Iterator[str]:
    """A text for each sample. What cannot be read is told."""
    from perfkeep.analysis.script import lines, objects

    for text in data.complaints():
        say(text)
    return objects(data, wanted) if json else lines(data, wanted)


def run(options: argparse.Namespace) -> int:
    from perfkeep.analysis.script import names_among
    from perfkeep.client.look import look

    wanted = chosen(options)
    data = look(options.source)
    lines = text_of(data, wanted, options.json)
    unknown = names_among(data, options.comm or ())[1]
    for name in unknown:
        say(f"no thread is called {printable(name)!r}")
    write, line = sys.stdout.write, ""
    for line in islice(lines, options.limit):
        write(line)
    if not line and not unknown and any(len(table) for table in data.tables.values()):
        say("no sample is among those chosen by the options")
    return 0
