"""`perfkeep report`: what was running, by process, from a perf.data file."""

from __future__ import annotations

import argparse

from perfkeep.cli.table import render


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a snapshot, or what perf record wrote")
    parser.add_argument("-n", "--top", type=_count, default=20, help="how many processes (20)")


def run(options: argparse.Namespace) -> int:
    from perfkeep.formats import perf_data
    from perfkeep.records.summary import Source, table

    data = perf_data.read(options.file)
    sources = [Source(event.name, event.attr, event.all_ids) for event in data.events]
    rows = table(sources, data.records())
    names = [source.name for source in sources]
    shown = [
        [
            "" if row.share is None else f"{row.share:.1%}",
            row.comm,
            str(row.pid),
            *(f"{row.samples.get(name, 0):,}" for name in names),
        ]
        for row in rows[: options.top]
    ]
    header = ["CPU TIME", "COMMAND", "PID", *names]
    print(render(header, shown, right=(0, 2, *range(3, len(header)))))
    if len(rows) > options.top:
        print(f"and {len(rows) - options.top} more processes; -n {len(rows)} shows them")
    return 0
