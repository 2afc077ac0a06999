"""`perfkeep ls`, the whole process, beside `python -c pass`; in turn, so that drift cancels."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

import perfkeep
from bench.figure import Budget, Figure
from bench.ground import instance

RUNS = 21


def _time(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def measure() -> list[Figure]:
    perfkeep_command = os.path.join(os.path.dirname(sys.executable), "perfkeep")
    with instance():
        perfkeep.start("listed", ["cpu-clock/freq=99/"], ring="64K")
        ls, bare = [], []
        for _ in range(RUNS):
            ls.append(_time([perfkeep_command, "ls"]))
            bare.append(_time([sys.executable, "-c", "pass"]))
    ours, theirs = statistics.median(ls), statistics.median(bare)
    return [
        Figure(
            "ms for perfkeep ls, whole process",
            ours * 1e3,
            f"python -c pass: {ours / theirs:.1f}×",
            theirs * 1e3,
            Budget("at most 6×", ours / theirs, 6),
        )
    ]
