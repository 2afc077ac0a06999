"""`perfkeep diff`: what takes more time than before."""

from __future__ import annotations

import argparse
import errno
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO

from perfkeep.cli.common import add_source, count, printable, say
from perfkeep.cli.progress import Progress
from perfkeep.cli.report import KEYS, add_samples, keys_of, say_remarks
from perfkeep.cli.table import render
from perfkeep.errors import PerfkeepError, UsageError

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data
    from perfkeep.analysis.stacks import Stacks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "before", metavar="BEFORE")
    add_source(parser, "after", metavar="AFTER", nargs="?", help="another one; BEFORE unless given")
    parser.add_argument(
        "--times", metavar="SPAN", action="append", default=[],
        help="only this part: 2s..5s from the first sample on, -5s.. before the last; given twice, "
        "the first is of BEFORE and the second of AFTER",
    )  # fmt: skip
    parser.add_argument(
        "--by", metavar="KEYS", type=keys_of, default=["sym"], help=f"of {KEYS}; sym otherwise"
    )
    parser.add_argument("-e", "--event", metavar="EVENT", help="compare this event's samples")
    parser.add_argument("-n", "--top", type=count, default=20, help="how many lines (20)")
    parser.add_argument(
        "--flamegraph", metavar="OUT", help="draw it, as one page of HTML; - is stdout"
    )
    add_samples(parser)


def run(options: argparse.Namespace) -> int:
    from perfkeep.analysis.compare import compare, counterpart
    from perfkeep.analysis.stacks import GROUPS, default_event
    from perfkeep.client.sources import STDIN

    if options.after is None and len(options.times) < 2:
        raise UsageError(
            "nothing was named to compare with",
            hint="name two files or recordings, or two spans with --times",
        )
    if options.before == options.after == STDIN:
        raise UsageError(
            "standard input can be read once", hint="name a file or a recording as well"
        )
    if len(options.times) > 2:
        raise UsageError("--times is given once, or twice")
    before = _read(options.before)
    after = before if options.after is None else _read(options.after)
    event = options.event or default_event(before)
    names = event, counterpart(event, before, after)
    keys = [key for key in options.by if key in GROUPS]
    spans = [*options.times, *options.times][:2] or ["", ""]
    found = [
        _stacks(data, name, ["comm"] if options.flamegraph else keys, span, options.samples)
        for data, name, span in zip((before, after), names, spans, strict=True)
    ]
    for data in (before, after)[: 1 + (after is not before)]:
        say_remarks(data)
    if options.flamegraph:
        _draw(options.flamegraph, *found)
        return 0
    changes = compare(found[0], found[1], [key for key in options.by if key not in GROUPS], keys)
    counts = [sum(part.samples.values()) for part in found]
    print(f"{counts[0]:,} and {counts[1]:,} samples of {printable(found[0].event)}")
    rows = [
        [
            f"{one.before:.1%}",
            f"{one.after:.1%}",
            f"{one.change * 100:+.1f}",
            f"{(one.total_after - one.total_before) * 100:+.1f}",
            *(str(one.values[key]) for key in options.by),
        ]
        for one in changes[: options.top]
    ]
    header = ["BEFORE", "AFTER", "CHANGE", "WITH CALLED", *(key.upper() for key in options.by)]
    print(render(header, rows, right=(0, 1, 2, 3)))
    if len(changes) > options.top:
        print(f"and {len(changes) - options.top} more lines; -n {len(changes)} shows them")
    return 0


def _read(source: str) -> Data:
    from perfkeep.client.look import look

    with Progress() as progress:
        progress.stage(f"reading {printable(source)}")
        data = look(source, progress.rings)
    for text in data.complaints():
        say(text)
    return data


def _stacks(data: Data, event: str, by: list[str], span: str, count_samples: bool) -> Stacks:
    from perfkeep.analysis.compare import parse_span
    from perfkeep.analysis.stacks import stacks

    moments = parse_span(span, data, event) if span else (None, None)
    found = stacks(data, event, by, moments, count_samples)
    if not found.samples:
        raise PerfkeepError(
            errno.ENODATA, f"there is no sample of {event}" + (f" within {span}" if span else "")
        )
    return found


def _draw(path: str, before: Stacks, after: Stacks) -> None:
    from perfkeep.client.aside import AsideFile
    from perfkeep.formats.flamegraph import flamegraph

    title = f"{after.event}: what changed"
    page = flamegraph(title, after.named(), before.named(), after.unit)
    with ExitStack() as stack:
        out: BinaryIO = sys.stdout.buffer
        if path != "-":
            out = stack.enter_context(AsideFile(path, True))
        out.write(page)
