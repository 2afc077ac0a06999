"""From asking to a complete perf.data on tmpfs, for two full rings of 8 MiB."""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import time
from contextlib import ExitStack

import perfkeep
from bench.figure import Budget, Figure
from bench.ground import EVENT, have_perf, instance, load, perf_dump, perf_record
from perfkeep.kernel import cpus

RUNS = 9
FILL_S = 6.0
TUNED = ("-B", "-N", "--no-bpf-event")


def _fill(stack: ExitStack) -> list[int]:
    """A load on two CPUs that writes more than 8 MiB each in FILL_S."""
    return [stack.enter_context(load(0, cpu)).pid for cpu in cpus.online()[:2]]


def ours(directory: str) -> tuple[float, int]:
    with instance(), ExitStack() as stack:
        pids = _fill(stack)
        recording = perfkeep.start("full", [EVENT], cpus=cpus.online()[:2], ring="8M")
        time.sleep(FILL_S)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        times = []
        for _ in range(RUNS):
            begin = time.perf_counter()
            snapshot = recording.snapshot(f"{directory}/ours")
            times.append(time.perf_counter() - begin)
            size = os.path.getsize(f"{directory}/ours")
            assert snapshot.coverage.complete
            os.unlink(f"{directory}/ours")  # perf as well writes a new file each time
        recording.claim()
    return statistics.median(times), size


def theirs(directory: str, *options: str) -> tuple[float, int]:
    """The ring is emptied by each dump, so it is filled again before each."""
    times, name = [], f"{directory}/perf"
    on = ",".join(str(cpu) for cpu in cpus.online()[:2])
    with ExitStack() as stack:
        pids = _fill(stack)
        process = stack.enter_context(perf_record(name, "-m", "8M", "-C", on, *options))
        for _ in range(3):
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            time.sleep(FILL_S)
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            times.append(perf_dump(process))
    sizes = []
    for file in os.listdir(directory):
        if file.startswith("perf."):
            sizes.append(os.path.getsize(f"{directory}/{file}"))
            os.unlink(f"{directory}/{file}")
    return statistics.median(times), max(sizes)


def _figures(directory: str) -> list[Figure]:
    mine, size = ours(directory)
    what = f"ms from asking to a complete perf.data of {size >> 20} MiB"
    if not have_perf():
        return [Figure(what, mine * 1e3, "", None)]
    figures = []
    for label, options, times in (
        ("perf record --overwrite --switch-output", (), 10),
        (f"the same with {' '.join(TUNED)}", TUNED, 3),
    ):
        perf, perf_size = theirs(directory, *options)
        figures.append(
            Figure(
                what,
                mine * 1e3,
                f"{label} ({perf_size >> 20} MiB): {perf / mine:.1f}×",
                perf * 1e3,
                Budget(f"{times}× faster", perf / mine, times, least=True),
            )
        )
    return figures


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="pkb-", dir="/dev/shm") as directory:
        return _figures(directory)
