"""`perfkeep report`: what was running, by process, from a perf.data file or a recording."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from perfkeep.cli.common import add_source, count, say
from perfkeep.cli.table import plain, render
from perfkeep.errors import UsageError

if TYPE_CHECKING:
    from perfkeep.abi.perf_event import Attr
    from perfkeep.analysis.data import Data
    from perfkeep.analysis.stacks import Stacks
    from perfkeep.records.summary import Source

_KEYS = ("comm", "pid", "tid", "cpu", "sym", "dso")
#: As a person reads them.
KEYS = "comm, pid, tid, cpu, sym and dso"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    parser.add_argument("-n", "--top", type=count, default=20, help="how many lines (20)")
    parser.add_argument(
        "--by",
        metavar="KEYS",
        type=keys_of,
        help=f"of {KEYS}, like comm,sym",
    )
    parser.add_argument(
        "--tree", action="store_true", help="show who called what, by thread or --by comm or pid"
    )
    parser.add_argument(
        "-e", "--event", metavar="EVENT", help="with --by or --tree: this event's samples"
    )
    add_samples(parser)


def add_samples(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--samples", action="store_true", help="count samples, instead of adding up their periods"
    )


def summed(found: Stacks, total: int, count_samples: bool) -> str:
    """The line above shares: how many samples there are, and by what they are weighed."""
    samples = f"{sum(found.samples.values()):,} samples of {plain(found.event)}"
    if count_samples or found.unit == "samples":
        return samples
    return f"{samples}, weighed by period: {total:,}{' ns' if found.unit == 'ns' else ''} in all"


def keys_of(text: str) -> list[str]:
    keys = text.split(",")
    if not set(keys) <= set(_KEYS) or len(set(keys)) < len(keys):
        raise argparse.ArgumentTypeError(f"{text!r} is not some of {', '.join(_KEYS)}")
    return keys


def say_remarks(data: Data) -> None:
    """Print what the answer does not show."""
    for text in data.remarks:
        say(plain(text))


def _by(options: argparse.Namespace) -> int:
    """Shares by what was asked for: of the thing itself and, of functions, of all that they called."""
    from perfkeep.analysis.stacks import GROUPS, default_event, shares, stacks
    from perfkeep.client.look import look

    data = look(options.source)
    for text in data.complaints():
        say(text)
    keys = [key for key in options.by if key in GROUPS]
    event = options.event or default_event(data)
    found = stacks(data, event, keys, count_samples=options.samples)
    rows = shares(found, [key for key in options.by if key not in GROUPS], keys)
    say_remarks(data)
    total = sum(found.weights.values())
    print(summed(found, total, options.samples))
    whole = total or 1
    header = ["SELF", "TOTAL", "SAMPLES", *(key.upper() for key in options.by)]
    shown = [
        [
            f"{row.self / whole:.1%}",
            f"{row.total / whole:.1%}",
            f"{row.samples:,}",
            *(str(row.values[key]) for key in options.by),
        ]
        for row in rows[: options.top]
    ]
    print(render(header, shown, right=(0, 1, 2)))
    if len(rows) > options.top:
        print(f"and {len(rows) - options.top} more lines; -n {len(rows)} shows them")
    return 0


def _tree(options: argparse.Namespace) -> int:
    """Callers above what they called. What has less than a hundredth of the whole is left out."""
    from perfkeep.analysis.stacks import GROUPS, default_event, stacks
    from perfkeep.analysis.tree import tree
    from perfkeep.client.look import look

    keys = options.by or ["comm"]
    if not set(keys) <= set(GROUPS):
        raise UsageError(f"--tree begins with some of {', '.join(GROUPS)}, not with functions")
    data = look(options.source)
    for text in data.complaints():
        say(text)
    event = options.event or default_event(data)
    found = stacks(data, event, keys, count_samples=options.samples)
    total = sum(found.weights.values())
    say_remarks(data)
    rows = tree(found, 0.01)
    print(summed(found, total, options.samples))
    whole = total or 1
    shown = [
        [f"{row.total / whole:.1%}", f"{row.own / whole:.1%}", "  " * row.depth + row.name]
        for row in rows[: options.top]
    ]
    print(render(["TOTAL", "SELF", "CALLED"], shown, right=(0, 1)))
    if len(rows) > options.top:
        print(f"and {len(rows) - options.top} more lines; -n {len(rows)} shows them")
    return 0


def _headings(sources: list[Source]) -> list[str]:
    """Names of events; of those with the same name, how often each is sampled as well."""
    times = Counter(source.name for source in sources)
    return [
        plain(source.name)
        if times[source.name] == 1
        else f"{plain(source.name)}/{_rate(source.attr)}={source.attr.sample_period}/"
        for source in sources
    ]


def _rate(attr: Attr) -> str:
    from perfkeep.abi.perf_event import Flag

    return "freq" if attr.flags & Flag.FREQ else "period"


def run(options: argparse.Namespace) -> int:
    if options.tree:
        return _tree(options)
    if options.by:
        return _by(options)
    if options.event:
        raise UsageError("-e goes with --by or --tree; without them every event is shown")
    from perfkeep.abi.records import Record
    from perfkeep.client.sources import parsed
    from perfkeep.records.summary import Source, table
    from perfkeep.records.throttle import sentences, throttled
    from perfkeep.records.unseen import SENTENCE, is_unseen
    from perfkeep.records.writers import Writers

    data = parsed(options.source)
    sources = [Source(one.name, one.attr, one.all_ids) for one in data.events]
    for text in data.complaints(data.end):
        say(text)
    throttles: list[memoryview] = []
    unseen = False

    def records() -> Iterator[tuple[int, memoryview]]:
        nonlocal unseen
        for kind, record in data.records():
            if kind == Record.THROTTLE:
                throttles.append(record)
            elif kind == Record.COMM:
                unseen = unseen or is_unseen(record)
            yield kind, record

    rows = table(sources, records(), options.samples)
    if unseen:
        say(SENTENCE)
    writers = Writers((source.attr, source.ids) for source in sources)
    for text in sentences(throttled(throttles, writers), [source.name for source in sources]):
        say(plain(text))
    columns = [
        number
        for number, source in enumerate(sources)
        if not source.attr.dummy or any(row.samples[number] for row in rows)
    ]
    shown = [
        [
            "" if row.share is None else f"{row.share:.1%}",
            row.comm,
            str(row.pid),
            *(f"{row.samples[number]:,}" for number in columns),
        ]
        for row in rows[: options.top]
    ]
    header = ["CPU TIME", "COMMAND", "PID", *_headings([sources[number] for number in columns])]
    print(render(header, shown, right=(0, 2, *range(3, len(header)))))
    if len(rows) > options.top:
        print(f"and {len(rows) - options.top} more processes; -n {len(rows)} shows them")
    return 0
