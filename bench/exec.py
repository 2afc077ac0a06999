"""What `perfkeep exec` costs a program's system calls, beside the same program without it."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.figure import Budget, Figure
from bench.ground import instance

ROUNDS = 7
EXEC = [sys.executable, "-m", "perfkeep", "exec", "--"]


def _times(command: list[str]) -> list[float]:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder, instance():
        program = f"{folder}/calls"
        source = str(Path(__file__).with_name("calls.c"))
        subprocess.run(["cc", "-O2", "-o", program, source], check=True)
        rounds = [(_times([program]), _times([*EXEC, program])) for _ in range(ROUNDS)]
    plain, under = ([statistics.median(column) for column in zip(*side, strict=True)]
                    for side in zip(*rounds, strict=True))  # fmt: skip
    more = [ours - theirs for ours, theirs in zip(under, plain, strict=True)]
    figures = [
        Figure(f"ns that {what} takes under exec", under[at], f"without: {more[at]:+.0f} ns",
               plain[at], Budget("at most 100 ns more", more[at], 100))
        for at, what in enumerate(("getppid", "an ioctl that is not trapped"))
    ]  # fmt: skip
    figures += [
        Figure(f"µs of a perf_event_open for a CPU under exec, {name}", under[at] / 1e3,
               f"without: {under[at] / plain[at]:.0f}×", plain[at] / 1e3, budget)
        for at, name, budget in (
            (2, "p50", None),
            (3, "p99", Budget("at most 1,000 µs", under[3] / 1e3, 1000)),
        )
    ]  # fmt: skip
    return figures
