"""`perfkeep size`: measure how much events record now, and say which ring holds it."""

from __future__ import annotations

import argparse

from perfkeep.cli.common import (
    add_events,
    need_events,
    print_json,
    process_id,
    raise_fd_limit,
    say_error,
)
from perfkeep.cli.table import render


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_events(parser)
    parser.add_argument("-C", "--cpu", metavar="CPUS", help="only these CPUs: 0-3,5")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("-p", "--pid", type=process_id, help="only this process, and what it forks")
    target.add_argument("--cgroup", metavar="PATH", help="only the tasks of this cgroup")
    parser.add_argument(
        "--last", metavar="TIME", default="10s", help="how long a ring shall reach back (10s)"
    )
    parser.add_argument(
        "--for", dest="span", metavar="TIME", default="2s", help="how long to measure (2s)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(options: argparse.Namespace) -> int:
    from perfkeep.client.limits import check_ring
    from perfkeep.client.size import measure, ring_for
    from perfkeep.errors import PerfkeepError, UsageError
    from perfkeep.kernel.cpus import parse_list
    from perfkeep.units import format_duration, format_size, parse_duration

    events = need_events(options)
    seconds = parse_duration(options.span) / 1e9
    if not 0.1 <= seconds <= 3600:
        raise UsageError("events are measured for 100ms to 1h")
    last = format_duration(parse_duration(options.last))
    raise_fd_limit()
    rates = measure(
        events,
        seconds,
        cpus=None if options.cpu is None else parse_list(options.cpu),
        pid=options.pid,
        cgroup=options.cgroup,
        call_chains=options.call_graph,
    )
    size = ring_for(rates, options.last)
    if options.json:
        print_json({"ring_bytes": size, "cpus": [one._asdict() for one in rates]})
    else:
        rows = [
            [str(one.cpu), f"{one.records_per_s:,.0f}", format_size(round(one.bytes_per_s))]
            for one in rates
        ]
        print(render(["CPU", "RECORDS/S", "BYTES/S"], rows, right=(0, 1, 2)))
        print(f"{last} of this, and a quarter more: --ring {format_size(size)}")
    try:
        check_ring(size, len(rates))
    except PerfkeepError as error:
        say_error(error)
        return 1
    return 0
