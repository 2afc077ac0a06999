"""Every option of stock `perf record` does with a persistent event what it does with a software
event, under `perfkeep exec`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

import perfkeep
from perfkeep.kernel import cpus
from perfkeep.testing.requirements import (
    perf_events,
    perf_tool,
    requires,
    root,
    seccomp_notification,
    tracefs,
)
from support.program import EXEC

pytestmark = requires(perf_events, tracefs, perf_tool, root, seccomp_notification)

#: Runs long enough to be sampled often, and for a time of its own only.
WORK = [sys.executable, "-I", "-S", "-c", "import time\nwhile time.process_time() < 0.1: pass"]
PERSISTENT = "persistent/flight/"
SOFTWARE = "cpu-clock/freq=999/"

#: Tests that share the options among them, so that none takes long.
PARTS = 12

#: Arguments, by the option's long name, in a folder that holds `fifo`; {pid} is a task that
#: runs all the time.
ARGUMENTS: dict[str, list[str]] = {
    "--affinity": ["--affinity=cpu"],
    "--aio": ["--aio=1"],
    "--call-graph": ["--call-graph", "dwarf,1024"],
    "--cgroup": ["-a", "-G", "/"],
    "--clang-opt": ["--clang-opt", "-g"],
    "--clang-path": ["--clang-path", "/usr/bin/true"],
    "--clockid": ["-k", "CLOCK_MONOTONIC"],
    "--compression-level": ["-z"],
    "--control": ["--control", "fifo:fifo"],
    "--count": ["-c", "1000000"],
    "--cpu": ["-C", f"{cpus.online()[0]}"],
    "--delay": ["-D", "10"],
    "--event": ["-e", "task-clock"],
    "--filter": ["--filter", "prev_pid == 1"],
    "--freq": ["-F", "99"],
    "--branch-filter": ["-j", "any"],
    "--max-size": ["--max-size", "10M"],
    "--mmap-flush": ["--mmap-flush", "1"],
    "--mmap-pages": ["-m", "16"],
    "--num-thread-synthesize": ["--num-thread-synthesize", "2"],
    "--off-cpu": ["--off-cpu"],
    "--output": ["-o", "perf.data"],
    "--pid": ["-p", "{pid}"],
    "--proc-map-timeout": ["--proc-map-timeout", "500"],
    "--realtime": ["-r", "1"],
    "--switch-max-files": ["--switch-output=10M", "--switch-max-files", "2"],
    "--switch-output": ["--switch-output=10M"],
    "--switch-output-event": ["--switch-output-event", "dummy"],
    "--synth": ["--synth", "task"],
    "--tid": ["-t", "{pid}"],
    "--uid": ["-u", "0"],
    "--vmlinux": ["--vmlinux", "/usr/bin/true"],
}


def usage() -> str:
    """`perf record -h`, which ends with 129."""
    return subprocess.run(
        ["perf", "record", "-h"], capture_output=True, text=True, check=False
    ).stderr


def options() -> Iterator[tuple[str, bool]]:
    """Each option's long name, and whether it needs an argument."""
    for line in usage().splitlines():
        option = re.match(r" +(?:-\w, +)?(--[a-z-]+)(\[=<[^]]*\])?( <.*)?", line)
        if option and "|" not in option[1]:
            yield option[1], bool(option[3])


@contextmanager
def spinning() -> Iterator[int]:
    """The pid of a process that uses a CPU all the time."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def record(folder: Path, event: str, words: list[str]) -> tuple[int, bool, str]:
    """Exit code of `perf record`, whether it took samples, and what it and its reader reported."""
    folder.mkdir()
    os.mkfifo(folder / "fifo")
    with spinning() if "{pid}" in words else nullcontext(0) as pid:
        words = [word.format(pid=pid) for word in words]
        done = subprocess.run(
            [*EXEC, "perf", "record", "-q", "-o", "perf.data", "-e", event, *words, *WORK],
            cwd=folder, capture_output=True, text=True, errors="replace", timeout=120, check=False,
        )  # fmt: skip
    samples, errors = 0, done.stderr
    for file in folder.glob("perf.data*"):
        script = subprocess.run(
            ["perf", "script", "-i", str(file), "-F", "event", "-G"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        samples += len(re.findall(r"^ *(?:cpu-clock|persistent/flight/|cpu-clock/freq=999/):",
                                  script.stdout, re.MULTILINE))  # fmt: skip
        errors += script.stderr
    return done.returncode, samples > 0, errors


def differs(folder: Path, option: str, words: list[str]) -> str | None:
    """A sentence if the option fails with the persistent event and not with a software event."""
    ours = record(folder / f"persistent{option}", PERSISTENT, words)
    if ours == (0, True, ""):
        return None
    # With a freq= of the event, perf samples in spite of --no-samples.
    event = "cpu-clock" if option == "--no-samples" else SOFTWARE
    software = record(folder / f"software{option}", event, words)
    same = ours[:2] == software[:2] and bool(ours[2]) == bool(software[2])
    return None if same else f"{option}: {ours} instead of {software}"


def test_every_option_that_needs_an_argument_has_one_here() -> None:
    names = dict(options())
    assert len(names) > 70 and {"--all-cpus", "--verbose", "--user-regs"} <= set(names)
    assert {name for name, needs_argument in names.items() if needs_argument} <= set(ARGUMENTS)


@pytest.mark.parametrize("target", [[], ["-a"]], ids=["command", "all CPUs"])
@pytest.mark.parametrize("part", range(PARTS))
def test_every_option_works_as_with_a_software_event(
    instance: Path, tmp_path: Path, part: int, target: list[str]
) -> None:
    perfkeep.start("flight", [SOFTWARE], ring="64K")
    differences = [
        differs(tmp_path, name, target + ARGUMENTS.get(name, [name]))
        for name, _ in list(options())[part::PARTS]
    ]
    assert not list(filter(None, differences))
