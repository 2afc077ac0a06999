"""Groups of persistent and other events under `perfkeep exec`: refused with the reason where they
are counted, sampled together where they are recorded.
"""

from __future__ import annotations

import errno
import os
import pty
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import perfkeep
from perfkeep.testing.load import heartbeat
from perfkeep.testing.requirements import (
    compiler,
    perf_events,
    perf_tool,
    requires,
    root,
    seccomp_notification,
    tracefs,
)
from support.program import CPU_CLOCK, EXEC, PERSISTENT, SOFTWARE, UNCLAIM, Launch, Program

pytestmark = requires(perf_events, tracefs, perf_tool, root, seccomp_notification, compiler)


def in_group(program: Program, type: int, config: int, leader: int) -> int:
    return program.ask(f"open {type:#x} {config} 0 -1 0 {leader}")


def persistent(program: Program) -> int:
    """Its id."""
    return program.ioctl(program.open(SOFTWARE, CPU_CLOCK), UNCLAIM)


def test_a_persistent_event_in_a_group_of_others_EINVAL(launch: Launch) -> None:
    program = launch()
    id = persistent(program)
    leader = program.open(SOFTWARE, CPU_CLOCK)
    assert in_group(program, PERSISTENT, id, leader) == -errno.EINVAL
    reopened = program.reopen(id)
    assert in_group(program, PERSISTENT, id, reopened) > reopened


def test_an_event_in_the_group_of_a_persistent_one_EINVAL(launch: Launch) -> None:
    program = launch()
    leader = program.reopen(persistent(program))
    assert leader > 0
    assert in_group(program, SOFTWARE, CPU_CLOCK, leader) == -errno.EINVAL


def on_terminal(*command: str) -> str:
    """All that a command prints, on a terminal of its own."""
    terminal, program_side = pty.openpty()
    with subprocess.Popen(command, stdin=program_side, stdout=program_side, stderr=program_side):
        os.close(program_side)
        printed = b""
        try:
            while block := os.read(terminal, 4096):
                printed += block
        except OSError:
            pass  # EIO: the last program has closed it
    os.close(terminal)
    return printed.decode()


@pytest.mark.parametrize(
    "group", ["{persistent/flight/,context-switches}", "{context-switches,persistent/flight/}"]
)
def test_the_terminal_shows_once_why_a_group_is_refused(instance: Path, group: str) -> None:
    perfkeep.start("flight", ["cpu-clock/freq=99/"], ring="64K")
    printed = on_terminal(*EXEC, "perf", "stat", "-a", "-e", group, "true")
    assert printed.count("perfkeep exec: a persistent event counts on by itself") == 1


def test_the_terminal_shows_once_that_counts_began_before_the_command(instance: Path) -> None:
    perfkeep.start("flight", ["cpu-clock/freq=99/"], ring="64K")
    printed = on_terminal(*EXEC, "perf", "stat", "-a", "-e", "persistent/flight/", "true")
    assert printed.count("perfkeep exec: persistent events count from when they were started") == 1


def test_the_terminal_shows_why_events_of_a_process_cannot_be_counted(instance: Path) -> None:
    with heartbeat(0) as pid:
        perfkeep.start("mine", ["context-switches"], pid=pid, ring="64K")
        printed = on_terminal(*EXEC, "perf", "stat", "-a", "-e", "persistent/mine/", "true")
    assert printed.count(f"follows pid {pid}") == 1 and "<not supported>" in printed


def test_errors_that_go_to_a_file_stay_the_program_s_own(instance: Path) -> None:
    perfkeep.start("flight", ["cpu-clock/freq=99/"], ring="64K")
    command = [*EXEC, "perf", "stat", "-a", "-e", "{persistent/flight/,context-switches}", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "perfkeep" not in done.stderr


@pytest.mark.parametrize("modifier", ["", ":S"])
@pytest.mark.parametrize("leader_first", [True, False])
def test_perf_record_samples_a_group_of_persistent_and_other_events(
    instance: Path, tmp_path: Path, modifier: str, leader_first: bool
) -> None:
    perfkeep.start("switches", ["sched:sched_switch"], ring="64K")
    events = ["persistent/switches/", "context-switches"]
    group = ",".join(events if leader_first else events[::-1])
    with heartbeat(0):
        subprocess.run(
            [*EXEC, "perf", "record", "-q", "-o", tmp_path / "perf.data", "-a",
             "-e", f"{{{group}}}{modifier}", "sleep", "0.2"],
            check=True,
        )  # fmt: skip
    script = subprocess.run(
        ["perf", "script", "-i", tmp_path / "perf.data", "-F", "event", "-G"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    samples = Counter(line.strip(" :") for line in script.stdout.splitlines() if line.strip())
    assert all(samples[event] > 10 for event in events), script.stderr
