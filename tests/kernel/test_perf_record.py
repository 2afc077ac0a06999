"""Files of stock perf, recorded in many ways: the same samples as in perf script."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from perfkeep.testing.requirements import perf_events, perf_tool, requires, root, tracefs
from support.commands import Cli, cli, perf
from support.waiting import Eventually

pytestmark = requires(perf_events, tracefs, perf_tool, root)

cli = pytest.fixture(cli)

# Computes, takes page faults, and starts another program.
LOAD = """
import hashlib, subprocess
for _ in range(100):
    hashlib.sha256(bytes(1 << 18)).digest()
subprocess.run(["true"], check=True)
"""
FAULTS = """
import mmap, os
print(os.getpid(), flush=True)
while True:
    mmap.mmap(-1, 1 << 16).write(b"x")
"""
#: Ways of recording with perf, and how often each samples: all events of the load alone.
WAYS = {
    "one event": "-e cpu-clock -c 200000",
    "frequency": "-e cpu-clock -F 4000",
    "call chains": "-g -e cpu-clock",
    "several events": "-e cpu-clock -e page-faults -e sched:sched_switch",
    "group": "-e {cpu-clock,page-faults}",
    "sampled group": "-e {cpu-clock,page-faults,context-switches}:S",
    "sampled group with others": "-e {cpu-clock,page-faults}:S -e task-clock -d",
    # perf 6.1 takes the counts of all tasks that inherit an event for one.
    "single event that is read": "-i -e cpu-clock:S",
    "levels": "-e cpu-clock:k -e cpu-clock:u",
    "compressed": "-z -e cpu-clock,page-faults",
    "threads": "--threads -e cpu-clock,page-faults",
    "threads, compressed": "--threads -z -e cpu-clock,page-faults",
    "user stacks": "--call-graph dwarf,256 -e cpu-clock",
    "addresses": "-d --phys-data -W -e page-faults",
    "more task records": "--namespaces --all-cgroups --switch-events -e cpu-clock",
    "backward rings": "--overwrite -e cpu-clock,page-faults",
    "without inheritance": "-i -s -e cpu-clock",
    "no times": "--per-thread -e cpu-clock -c 200000",
    "cgroup of each sample": "--all-cgroups --sample-cpu -P -e cpu-clock -e dummy",
    "times of the file": "-T --timestamp-boundary --running-time -e cpu-clock",
    "build ids": "--buildid-all -e cpu-clock",
    "build ids of mappings": "--buildid-mmap -e cpu-clock",
    "no build ids": "-N -B -e cpu-clock",
    "CLOCK_MONOTONIC": "-k mono -e cpu-clock",
    "CLOCK_REALTIME": "-k CLOCK_REALTIME -e cpu-clock",
    "sizes of pages": "-d --data-page-size --code-page-size -e page-faults -c 1",
    "registers": "--intr-regs=ax,ip --user-regs=sp,ip -e cpu-clock",
    "weights": "--weight --transaction -R -e cpu-clock:pp",
    "a name of its own": "-e cpu-clock/freq=4000,name=mine/",
    "nothing synthesized": "--synth=no -e cpu-clock",
    "task records at the end": "--overwrite --tail-synthesize -e cpu-clock",
    "callers of the user alone": "-g --user-callchains -e cpu-clock",
    "callers of the kernel alone": "-g --kernel-callchains -e page-faults",
    "small rings": "-m 1 -e cpu-clock",
    "asynchronous": "--aio -e cpu-clock",
    "a part of the file": "--max-size=20K -e cpu-clock",
    "system calls": "-e syscalls:sys_enter_openat -e syscalls:sys_exit_openat",
}
FIELDS = "comm,tid,time,event,period"
#: perf commands that record with options of their own.
COMMANDS = ["sched", "kmem", "lock", "trace"]


def rows(text: str) -> Counter[tuple[str, ...]]:
    return Counter(tuple(line.split()) for line in text.splitlines() if line.strip())


def record(out: Path, how: str) -> None:
    subprocess.run(
        ["perf", "record", "-q", "-o", out, *how.split(), "--", sys.executable, "-c", LOAD],
        check=True, capture_output=True,
    )  # fmt: skip


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
def test_script_has_the_samples_of_perf_script(cli: Cli, tmp_path: Path, how: str) -> None:
    path = tmp_path / "perf.data"
    record(path, how)
    fields = FIELDS.replace("time,", "") if "--per-thread" in how else FIELDS
    theirs = rows(perf("script", "-i", path, "-F", fields, "-G"))
    ours = rows(cli("script", path, "-F", fields, "-G").out)
    assert theirs and ours == theirs


@pytest.mark.parametrize("command", COMMANDS)
def test_script_has_the_samples_of_what_other_commands_of_perf_record(
    cli: Cli, tmp_path: Path, command: str
) -> None:
    path = tmp_path / "perf.data"
    subprocess.run(
        ["perf", command, "record", "-o", path, sys.executable, "-c", LOAD],
        check=True, capture_output=True,
    )  # fmt: skip
    # They record every task, so on a busy machine perf warns of what it lost.
    theirs = subprocess.run(
        ["perf", "script", "-i", path, "-F", FIELDS, "-G"],
        check=True, capture_output=True, text=True, errors="replace",
    ).stdout  # fmt: skip
    assert rows(cli("script", path, "-F", FIELDS, "-G").out) == rows(theirs)


#: Of stubs that call another library; no symbol table has these names.
_MADE_UP = re.compile(r" \S+@plt\+0x[0-9a-f]+ \(")


@pytest.mark.parametrize("how", ["one event", "no times", "threads", "addresses"])
def test_functions_are_those_of_perf_script(cli: Cli, tmp_path: Path, how: str) -> None:
    path = tmp_path / "perf.data"
    record(path, WAYS[how])
    fields = "comm,tid,ip,sym,symoff,dso"
    theirs = rows(_MADE_UP.sub(" [unknown] (", perf("script", "-i", path, "-F", fields, "-G")))
    assert theirs and rows(cli("script", path, "-F", fields, "-G").out) == theirs


@pytest.mark.parametrize("how", ["several events", "sampled group", "threads", "levels"])
def test_report_counts_the_samples_that_perf_script_prints(
    cli: Cli, tmp_path: Path, how: str
) -> None:
    path = tmp_path / "perf.data"
    record(path, WAYS[how])
    printed = perf("script", "-i", path, "-F", "event", "-G").split()
    theirs = Counter(event.removesuffix(":") for event in printed)
    head, *table = cli("report", path, "-n", "1000000").out.splitlines()
    names = head.removeprefix("CPU TIME  COMMAND").split()[1:]
    counts = [
        [int(word.replace(",", "")) for word in line.split()[-len(names) :]] for line in table
    ]
    sums = dict(zip(names, map(sum, zip(*counts, strict=True)), strict=True))
    assert {name: count for name, count in sums.items() if count} == theirs


def test_a_pipe_has_the_samples_and_names_of_perf_script(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "pipe.data"
    with path.open("wb") as out:
        how = ["-e", "cpu-clock,page-faults", "-e", "sched:sched_switch"]
        subprocess.run(
            ["perf", "record", "-q", "-o", "-", *how, "--", sys.executable, "-c", LOAD],
            check=True, stdout=out, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    with path.open("rb") as source:
        theirs = subprocess.run(
            ["perf", "script", "-i", "-", "-F", FIELDS, "-G"],
            check=True, stdin=source, capture_output=True, text=True, errors="replace",
        ).stdout  # fmt: skip
    assert rows(theirs)
    assert rows(cli("script", path, "-F", FIELDS, "-G").out) == rows(theirs)


def test_files_that_perf_inject_wrote_have_the_same_samples(cli: Cli, tmp_path: Path) -> None:
    path, injected = tmp_path / "perf.data", tmp_path / "injected.data"
    record(path, "-e cpu-clock,page-faults")
    perf("inject", "-b", "-i", path, "-o", injected)
    before = cli("script", path, "-F", FIELDS).out
    assert before and cli("script", injected, "-F", FIELDS).out == before


def test_what_a_killed_perf_record_wrote_is_read(
    cli: Cli, tmp_path: Path, eventually: Eventually
) -> None:
    path = tmp_path / "killed.data"
    command = ["perf", "record", "-q", "-e", "page-faults", "-c", "1", "-m", "4K", "-o", str(path)]
    with subprocess.Popen(
        [*command, "--", sys.executable, "-c", FAULTS], stdout=subprocess.PIPE
    ) as killed:
        assert killed.stdout is not None
        load = int(killed.stdout.readline())
        try:
            eventually(lambda: path.stat().st_size > 1 << 16)
            killed.kill()
        finally:
            os.kill(load, signal.SIGKILL)
    ran = cli("script", path, "-F", "event")
    assert ran.err.startswith("perfkeep: perf record did not end properly: ")
    assert set(ran.out.split()) == {"page-faults:"} and len(ran.out.splitlines()) > 100
