"""Churn for a long time: what resident memory and fds of the daemons do meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import perfkeep
from chaos.faults import OTHER, REQUESTS
from chaos.world import World, world
from perfkeep.broker.leaving import MOST_RETIRED
from perfkeep.cli.table import render
from perfkeep.errors import KernelRefused, UsageError
from perfkeep.units import format_size
from perfkeep.wire.sideband import ROOM

#: What Python's allocator and the libraries take once belongs to the start.
_WARM_UP = 0.1
#: That come and go each round.
_PROCESSES = 20
#: And at the start, with what the kernel tells of each: more than 1,000 bytes.
_PROCESSES_THAT_FILL_THE_ROOM = ROOM // 1000


class Look(NamedTuple):
    """One of the daemons at one moment: without rings, which are shared and mapped."""

    anonymous: int
    fds: int


def look(pid: int) -> Look:
    fields = dict(line.split(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    anonymous = int(fields["RssAnon"].split()[0]) << 10
    return Look(anonymous, len(os.listdir(f"/proc/{pid}/fd")))


def soak(seconds: float) -> int:
    """Ask for everything in turn; prints how memory and fds changed after the warm-up.

    Returns:
        1 when memory grew by more than a hundredth, or fds are left.
    """
    rows, rounds, failed = [], 0, False
    with world(0.001) as one:
        perfkeep.start(OTHER, ["cpu-clock"], ring="64K")
        _fill()
        begin, pids = time.monotonic(), one.pids()
        warm: tuple[Look, ...] | None = None
        while (now := time.monotonic() - begin) < seconds:
            _churn(one)
            rounds += 1
            if sys.stderr.isatty():
                print(f"\r{now:.0f} of {seconds:.0f} s", end="", file=sys.stderr, flush=True)
            if warm is None and now > seconds * _WARM_UP:
                warm = tuple(map(look, pids))
        after = tuple(map(look, pids))
        assert warm is not None and one.pids() == pids
        for name, first, last in zip(("broker", "keeper"), warm, after, strict=True):
            growth = last.anonymous / first.anonymous - 1
            failed |= growth > 0.01 or last.fds > first.fds
            rows.append(
                [
                    name,
                    format_size(first.anonymous),
                    format_size(last.anonymous),
                    f"{growth:+.2%}",
                    str(first.fds),
                    str(last.fds),
                ]
            )
    header = ["PROCESS", "MEMORY AFTER WARM-UP", "AT THE END", "CHANGE", "FDS", "FDS AT THE END"]
    print(render(header, rows, right=(1, 2, 3, 4, 5)))
    print(
        f"{rounds * len(REQUESTS):,} requests in {seconds:.0f} s, {one.checked:,} samples checked"
    )
    return int(failed)


def _fill() -> None:
    """What the broker remembers of the past has its bounds. Come up to them at once."""
    for _ in range(MOST_RETIRED):
        REQUESTS["add and remove"]()
    _processes(_PROCESSES_THAT_FILL_THE_ROOM)


def _processes(count: int) -> None:
    for _ in range(count):
        subprocess.run(["/bin/true"], check=True)


def _churn(one: World) -> None:
    _processes(_PROCESSES)
    for request in REQUESTS.values():
        with suppress(KernelRefused, UsageError):  # somebody else has taken a CPU offline
            request()
    one.check()
