"""`perfkeep snapshot`: what a recording holds, as a perf.data file."""

from __future__ import annotations

import argparse
import os
import stat
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from perfkeep.cli.common import printable, recording_name, say, say_hint, utc
from perfkeep.cli.table import plain, render

if TYPE_CHECKING:
    from perfkeep.client.snapshot import Snapshot
    from perfkeep.formats.perf_data import CpuCoverage
    from perfkeep.wire.messages import Gap

_COLUMNS = ("CPU", "FROM", "TO", "RECORDS", "BYTES", "OVERWRITTEN", "LOST", "THROTTLED", "REACHED")
_INCOMPLETE = 3
_STDOUT = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=recording_name)
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="NAME.data unless given; - is stdout"
    )
    parser.add_argument("--last", metavar="TIME", help="only this much before now: 10s, 250ms")
    parser.add_argument(
        "--since", metavar="T", help="from then on: 10s (ago), 14:05, an RFC 3339 time"
    )
    parser.add_argument("--until", metavar="T", help="up to then")
    parser.add_argument(
        "--no-clobber", action="store_true", help="leave a file that exists as it is"
    )


def _progress(begin: float) -> Callable[[int, int], None]:
    """Tells a person on a terminal how far it is, once it takes over a second."""

    def show(done: int, total: int) -> None:
        if time.monotonic() - begin > 1 and sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\rring {done} of {total}", end=end, file=sys.stderr, flush=True)

    return show


def _is_stream(path: str) -> bool:
    """A pipe or a device is written to; a file would be renamed over it, and it would be gone."""
    if path == _STDOUT:
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False  # there is none yet, or the attempt to make it will say why it cannot be
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _pour(snapshot: Snapshot, target: BinaryIO) -> None:
    with snapshot.open() as data:
        while part := data.read(1 << 20):
            target.write(part)
    target.flush()


def run(options: argparse.Namespace) -> int:
    from perfkeep.cli.times import parse_moment
    from perfkeep.client.snapshot import take
    from perfkeep.errors import UsageError

    if options.last is not None and (options.since or options.until):
        raise UsageError("--last cannot be combined with --since or --until")
    since = parse_moment(options.since) if options.since is not None else None
    until = parse_moment(options.until) if options.until is not None else None
    if since is not None and since > time.clock_gettime_ns(time.CLOCK_MONOTONIC):
        raise UsageError(f"--since {options.since} is in the future")
    if since is not None and until is not None and until <= since:
        raise UsageError(f"--until {options.until} is not after --since {options.since}")
    path = options.output or f"{options.name}.data"
    stream = _is_stream(path)
    snapshot = take(
        options.name,
        None if stream else path,
        last=options.last,
        since_ns=since,
        until_ns=until,
        clobber=not options.no_clobber,
        progress=_progress(time.monotonic()),
    )
    with snapshot:
        for remark in snapshot.coverage.remarks():
            say(remark)
        if path == _STDOUT:
            _pour(snapshot, sys.stdout.buffer)
        elif stream:
            try:
                with open(path, "wb") as target:
                    _pour(snapshot, target)
            except OSError as error:
                error.filename = error.filename or path
                raise
        if path != _STDOUT:
            print(coverage_table(snapshot.coverage.cpus, _since_now(snapshot.ahead_ns)))
            print(f"written to {printable(path)}")
    if snapshot.complete:
        return 0
    say(what_is_missing(snapshot.coverage.cpus, snapshot.gaps))
    if snapshot.recording.target.program is not None and any(
        gap.until_ns is None for gap in snapshot.gaps
    ):
        say_hint(f"perfkeep enable {snapshot.recording.name}")
    return _INCOMPLETE


def _since_now(ahead_ns: int | None) -> Callable[[int], str]:
    """Writes a time of the recording's clock, which is so far ahead of CLOCK_MONOTONIC."""
    if ahead_ns is None:
        return lambda _: ""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + ahead_ns
    return lambda ns: f"{(ns - now) / 1e9:+.3f}s"


def coverage_table(cpus: list[CpuCoverage], moment: Callable[[int], str]) -> str:
    """What a snapshot covers, a line for each CPU; `moment` writes a time of its clock."""

    def ago(ns: int | None) -> str:
        return "" if ns is None else moment(ns)

    rows = [
        [
            str(cpu.cpu),
            ago(cpu.first_ns),
            ago(cpu.last_ns),
            f"{cpu.records:,}",
            f"{cpu.bytes:,}",
            f"{cpu.overwritten:,}",
            f"{cpu.lost:,}",
            f"{sum(cpu.throttled.values()):,}",
            "yes" if cpu.reached else "no",
        ]
        for cpu in cpus
    ]
    return render(_COLUMNS, rows, right=range(8))


#: The last ones; `perfkeep show` lists them all.
_GAPS_IN_A_SENTENCE = 3


def what_is_missing(cpus: list[CpuCoverage], gaps: list[Gap]) -> str:
    """Why a snapshot is not complete, in one sentence."""
    from perfkeep.kernel.cpus import format_list

    stopped = [cpu.cpu for cpu in cpus if cpu.stopped]
    short = [cpu.cpu for cpu in cpus if not cpu.reached and not cpu.stopped]
    lost = sum(cpu.lost for cpu in cpus)
    reasons = []
    if stopped:
        reasons.append(
            f"the rings of CPU {format_list(stopped)} do not overwrite and are full, so they lack "
            "what came after the time in TO"
        )
    if short:
        reasons.append(
            f"the rings of CPU {format_list(short)} do not reach back as far as was asked for "
            "(a larger --ring would)"
        )
    if lost:
        reasons.append(f"the kernel had no room for {lost:,} samples")
    for gap in gaps[-_GAPS_IN_A_SENTENCE:]:
        until = "until now" if gap.until_ns is None else f"to {utc(gap.until_ns)}"
        on = "" if gap.cpus is None else f" on CPU {format_list(gap.cpus)}"
        reasons.append(f"there is no data{on} from {utc(gap.since_ns)} {until} ({plain(gap.why)})")
    if len(gaps) > _GAPS_IN_A_SENTENCE:
        reasons.append(f"there are {len(gaps) - _GAPS_IN_A_SENTENCE} earlier gaps")
    return f"this snapshot is not complete: {' and '.join(reasons)}"
