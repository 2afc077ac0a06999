"""`perfkeep recover`: a snapshot from the copy of the rings on disk."""

from __future__ import annotations

import argparse
import errno
from collections.abc import Callable

from perfkeep.cli.common import say, utc
from perfkeep.cli.table import plain, render
from perfkeep.client.recover import Spilled, look, look_at_all, recover
from perfkeep.errors import PerfkeepError, UsageError
from perfkeep.units import format_size

_INCOMPLETE = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="what --spill named")
    parser.add_argument("-o", "--output", metavar="FILE", help="NAME.data unless given")
    parser.add_argument(
        "--from", dest="before", metavar="before-N", help="an older one that was put aside"
    )
    parser.add_argument("--list", action="store_true", help="only tell what there is")
    parser.add_argument(
        "--no-clobber", action="store_true", help="leave a file that exists as it is"
    )


def run(options: argparse.Namespace) -> int:
    if options.list:
        return _list(options.directory)
    if options.before and (not options.before.startswith("before-") or "/" in options.before):
        raise UsageError(
            f"--from {options.before} is not the name of an older copy",
            hint=f"perfkeep recover --list {options.directory}",
        )
    spilled = look(options.directory, options.before or "")
    path = options.output or f"{spilled.meta.recording.name}.data"
    from perfkeep.cli.snapshot import coverage_table, what_is_missing

    with recover(spilled, path, not options.no_clobber) as snapshot:
        print(coverage_table(snapshot.coverage.cpus, _clock(spilled)))
        print(f"{plain(spilled.meta.recording.name)} as it was at {utc(spilled.last_ns)}")
        print(f"written to {path}")
    for problem in (*snapshot.coverage.remarks(), *spilled.problems):
        say(problem)
    if snapshot.complete and not spilled.problems:
        return 0
    if not snapshot.complete:
        say(what_is_missing(snapshot.coverage.cpus, snapshot.gaps))
    return _INCOMPLETE


def _clock(spilled: Spilled) -> Callable[[int], str]:
    """Times of the recording's clock, as seconds before it was written last."""
    last = max(one.slot.monotonic_ns for one in spilled.rings.values())
    return lambda ns: f"{(ns - last) / 1e9:+.3f}s"


def _list(directory: str) -> int:
    found = list(look_at_all(directory))
    if not found:
        raise PerfkeepError(errno.ENOENT, f"{directory} holds no crash copy of rings")
    print(
        render(["COPY", "RECORDING", "WRITTEN", "CPUS", "HOLDS"], [*map(_row, found)], right=(3, 4))
    )
    return 0


def _row(one: Spilled) -> list[str]:
    size = sum(state.valid for state in one.rings.values())
    written = utc(one.last_ns) if one.last_ns else "never"
    name = one.meta.recording.name
    return [one.name or "newest", name, written, str(len(one.rings)), format_size(size)]
