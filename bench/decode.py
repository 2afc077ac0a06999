"""From a perf.data file to Arrow tables, beside `perf script`, which prints the same samples."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack

import perfkeep
from bench.figure import Budget, Figure
from bench.ground import EVENT, have_perf, instance, load
from perfkeep.abi.perf_data import HEADER
from perfkeep.kernel import cpus

RUNS = 5
FILL_S = 5.0
MANY = 10_000_000

_DECODE = """
import json, sys, time
import nanoarrow, perfkeep, perfkeep.formats.arrow
def high_water():
    text = open("/proc/self/status").read()
    return int(text.split("VmHWM:")[1].split()[0]) << 10
before, times = high_water(), []
for _ in range(int(sys.argv[2])):
    begin = time.perf_counter()
    samples = 0
    for table in perfkeep.read(sys.argv[1]).to_arrow().values():
        for batch in nanoarrow.c_array_stream(table):
            samples += batch.length
    times.append(time.perf_counter() - begin)
    del table, batch
print(json.dumps([samples, times, high_water() - before]))
"""


def _ours(path: str, runs: int = RUNS) -> tuple[int, float, int]:
    """(samples, seconds of the fastest run, bytes at the most) in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _DECODE, path, str(runs)], capture_output=True, text=True, check=True
    )
    samples, times, memory = json.loads(done.stdout)
    return samples, min(times), memory


def _theirs(path: str) -> float:
    """Seconds."""
    begin = time.perf_counter()
    subprocess.run(
        ["perf", "script", "-i", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        check=True,
    )  # fmt: skip
    return time.perf_counter() - begin


def _in_turn(path: str) -> tuple[int, float, int, float | None]:
    """(samples, our seconds, our bytes at the most, perf's seconds): both in turn, as this machine has
    its fast and its slow minutes, and of each the fastest run.
    """
    ours, theirs = [], []
    for _ in range(RUNS):
        ours.append(_ours(path))
        if have_perf():
            theirs.append(_theirs(path))
    samples = ours[0][0]
    fastest, memory = min(one[1] for one in ours), max(one[2] for one in ours)
    return samples, fastest, memory, min(theirs, default=None)


def _record(directory: str, name: str, call_chains: bool) -> str:
    """A snapshot of two full rings."""
    path = f"{directory}/{name}"
    with instance(), ExitStack() as stack:
        on = cpus.online()[:2]
        for cpu in on:
            stack.enter_context(load(0, cpu))
        recording = perfkeep.start("full", [EVENT], cpus=on, ring="16M", call_chains=call_chains)
        time.sleep(FILL_S)
        recording.snapshot(path).close()
        recording.claim()
    return path


def _repeated(path: str, samples: int, wanted: int) -> str:
    """The same file with its records again and again, until there are so many samples."""
    with open(path, "rb") as file:
        whole = file.read()
    head = list(HEADER.unpack_from(whole))
    at, size = head[5], head[6]
    times = -(-wanted // samples)
    # The features lie behind the data; without them nothing has to be moved.
    head[6], head[9] = size * times, bytes(32)
    grown = f"{path}.many"
    with open(grown, "wb") as out:
        out.write(HEADER.pack(*head) + whole[HEADER.size : at])
        for _ in range(times):
            out.write(whole[at : at + size])
    return grown


def _slice(path: str, samples: int, wanted: int) -> str:
    """The same file with its first records only."""
    with open(path, "rb") as file:
        whole = bytearray(file.read())
    head = list(HEADER.unpack_from(whole))
    at, end, count = head[5], head[5], 0
    while count < min(wanted, samples):
        kind, _, size = struct.unpack_from("=IHH", whole, end)
        count += kind == 9
        end += size
    head[6], head[9] = end - at, bytes(32)
    part = f"{path}.few"
    with open(part, "wb") as out:
        out.write(HEADER.pack(*head) + whole[HEADER.size : end])
    return part


def measure() -> list[Figure]:
    figures = []
    with tempfile.TemporaryDirectory(prefix="pkb-", dir="/dev/shm") as directory:
        for name, chains in (("tracepoint", False), ("call-chain", True)):
            path = _record(directory, name, chains)
            samples, seconds, memory, perf_s = _in_turn(path)
            size = os.path.getsize(path)
            theirs = None if perf_s is None else samples / perf_s
            ratio = None if theirs is None else samples / seconds / theirs
            figures += [
                Figure(
                    f"{name} samples per second into Arrow (of {samples:,})",
                    samples / seconds,
                    "" if ratio is None else f"perf script: {ratio:.1f}×",
                    theirs,
                    None if ratio is None else Budget("at least 20×", ratio, 20, least=True),
                ),
                Figure(
                    f"MiB at the most, beyond the interpreter's own, for {name} samples",
                    memory / 2**20,
                    f"the file: {memory / size:.1f}×",
                    size / 2**20,
                    Budget("at most 3×", memory / size, 3),
                ),
            ]
            if chains:
                continue
            few, few_s, _ = _ours(_slice(path, samples, 10_000), 20)
            many, many_s, _ = _ours(_repeated(path, samples, MANY), 1)
            flat = (many_s / many) / (few_s / few)
            figures.append(
                Figure(
                    f"ns for one of {many:,} samples",
                    many_s / many * 1e9,
                    f"for one of {few:,}: {flat:.2f}×",
                    few_s / few * 1e9,
                    Budget("flat", flat, 1.25),
                )
            )
    return figures
