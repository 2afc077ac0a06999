"""Samples missing around a snapshot, under a heartbeat of one event every 50 to 100 µs."""

from __future__ import annotations

import glob
import re
import subprocess
import tempfile
import time

import perfkeep
from bench.figure import Budget, Figure
from bench.ground import EVENT, have_perf, instance, load, perf_dump, perf_record

SNAPSHOTS = 10
BEAT_S = 20e-6


def numbers_of(path: str) -> set[int]:
    """The running numbers in a perf.data file, from the raw bytes of the tracepoint."""
    text = subprocess.run(
        ["perf", "script", "-i", path, "-F", "trace"], capture_output=True, text=True, check=True
    ).stdout
    return {int(one, 16) for one in re.findall(r"who: 0x([0-9a-f]+)", text)}


def missing(found: list[set[int]]) -> int:
    """Numbers between the first and the last that no file holds."""
    union = set().union(*found)
    return max(union) - min(union) + 1 - len(union)


def ours(directory: str) -> tuple[int, int]:
    with instance(), load(BEAT_S, 0):
        recording = perfkeep.start("beat", [EVENT], ring="8M")
        files = [f"{directory}/ours.{n}" for n in range(SNAPSHOTS)]
        for path in files:
            time.sleep(0.3)
            recording.snapshot(path)
        recording.claim()
    found = [numbers_of(path) for path in files]
    return missing(found), len(set().union(*found))


def theirs(directory: str) -> tuple[int, int]:
    with load(BEAT_S, 0), perf_record(f"{directory}/perf", "-m", "8M") as process:
        for _ in range(SNAPSHOTS):
            time.sleep(0.3)
            perf_dump(process)
    # Each dump empties the ring, so that the files follow one another; the gaps are what
    # happened while perf had paused it.
    found = [numbers_of(path) for path in sorted(glob.glob(f"{directory}/perf.*"))]
    return missing([one for one in found if one]), len(set().union(*found))


def measure() -> list[Figure]:
    if not have_perf():
        return []
    with tempfile.TemporaryDirectory(prefix="pkb-", dir="/dev/shm") as directory:
        lost, seen = ours(directory)
        perf_lost, perf_seen = theirs(directory)
    what = f"samples missing around {SNAPSHOTS} snapshots"
    return [
        Figure(
            f"{what} (of {seen:,}; perf: of {perf_seen:,})",
            lost,
            "perf record --overwrite --switch-output",
            perf_lost,
            Budget("0", lost, 0),
        )
    ]
