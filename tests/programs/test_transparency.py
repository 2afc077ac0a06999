"""What is not about persistent events is as it would be without `perfkeep exec`."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import perfkeep
from perfkeep.kernel import cpus
from perfkeep.testing.requirements import (
    compiler,
    i386,
    perf_events,
    requires,
    root,
    seccomp_notification,
    uprobes,
)
from support.program import (
    CPU_CLOCK,
    DISABLE,
    DUMMY,
    ENABLE,
    EXEC,
    PAUSE_OUTPUT,
    PERIOD,
    PERSISTENT,
    SET_OUTPUT,
    SOFTWARE,
    TASK_CLOCK,
    UNCLAIM,
    Launch,
    Program,
    supervisors,
)
from support.waiting import Eventually

pytestmark = requires(perf_events, compiler, seccomp_notification)

#: (type, config, cpu, pid, fields): good and bad, of CPUs, of tasks, of neither.
OPENS = [
    (SOFTWARE, CPU_CLOCK, 0, -1, ""),
    (SOFTWARE, CPU_CLOCK, -1, 0, ""),
    (SOFTWARE, CPU_CLOCK, -1, -1, ""),
    (SOFTWARE, CPU_CLOCK, 4000, -1, ""),
    (SOFTWARE, CPU_CLOCK, -7, -1, ""),
    (SOFTWARE, CPU_CLOCK, 0, -7, ""),
    (SOFTWARE, CPU_CLOCK, 0, 1 << 30, ""),
    (SOFTWARE, 99, 0, -1, ""),
    (999, 1, 0, -1, ""),
    (SOFTWARE, CPU_CLOCK, 0, -1, "size=0"),
    (SOFTWARE, CPU_CLOCK, 0, -1, "size=64"),
    (SOFTWARE, CPU_CLOCK, 0, -1, "size=63"),
    (SOFTWARE, CPU_CLOCK, 0, -1, "size=5000"),
    (SOFTWARE, CPU_CLOCK, 0, -1, f"flags={1 << 40}"),
    (SOFTWARE, CPU_CLOCK, 0, -1, f"flags={1 << 63}"),
    (SOFTWARE, CPU_CLOCK, 0, -1, "sample_type=0xffffffffff"),
    (SOFTWARE, CPU_CLOCK, 0, -1, "read_format=99"),
    (SOFTWARE, CPU_CLOCK, 0, -1, "period=0xffffffffffffffff"),
    (5, 0, 0, -1, "config1=0"),
]


def results(program: Program) -> list[object]:
    """What a program sees of the kernel: fds are only told from errnos."""
    seen: list[object] = []
    for type, config, cpu, pid, fields in OPENS:
        for flags in (0, 8, 1 << 20, 1 << 40 | 8):
            line = f"open {type} {config} {cpu} {pid} {flags} -1 {fields}"
            got = program.ask(line)
            seen.append((line, "fd" if got >= 0 else got, program.ask("attr size")))
            if got >= 0:
                seen.append(("close", program.ask(f"close {got}")))
    for address in (0, 8, 1 << 46, (1 << 64) - 8):
        seen.append(
            (address, program.ask(f"open_at {address - (1 << 64 if address >> 63 else 0)} 0"))
        )
    leader = program.open(SOFTWARE, CPU_CLOCK)
    member = program.ask(f"open {SOFTWARE} {DUMMY} 0 -1 0 {leader}")
    strange = program.ask(f"open {SOFTWARE} {DUMMY} 0 -1 0 999")
    other = program.ask(f"open {SOFTWARE} {DUMMY} {cpus.online()[-1]} -1 0 {leader}")
    seen.append(("group", leader >= 0, member >= 0, strange, other >= 0 or other))
    task = program.open(SOFTWARE, TASK_CLOCK, -1, pid=0)
    for fd in (leader, member, task, 0, 999):
        for command in (ENABLE, DISABLE, PAUSE_OUTPUT, SET_OUTPUT, PERIOD, 0x24FF, 0x5401):
            for argument in (0, 1, -1, leader, 999):
                got = program.ioctl(fd, command, argument)
                seen.append((fd == leader, fd == task, command, argument == leader, got))
    return seen


@pytest.mark.parametrize("linked", ["dynamic", "static"])
def test_every_open_and_ioctl_gives_what_it_gives_without_us(launch: Launch, linked: str) -> None:
    assert results(launch(linked)) == results(launch(linked, under=["env"]))


def test_it_is_the_same_process_with_the_same_parent_and_no_child(launch: Launch) -> None:
    client = launch()
    assert client.ask("pid") == client.process.pid
    assert client.ask("children") == -errno.ECHILD


@pytest.mark.parametrize("how", ["thread", "fork", "vfork"])
def test_threads_and_children_have_it_as_well(client: Program, how: str) -> None:
    fd, id = client.unclaimed()
    assert client.ask(f"in {how} open {PERSISTENT} {id} 0 -1 0 -1") >= 0
    assert client.ask(f"in {how} ioctl {fd} {UNCLAIM}") == -errno.EEXIST
    own = client.open(SOFTWARE, CPU_CLOCK)
    assert client.ask(f"in {how} ioctl {own} {UNCLAIM}") == id + 1


def test_what_the_program_executes_has_it_as_well(client: Program) -> None:
    fd, id = client.unclaimed()
    client.begin("exec")
    assert client.process.stdout is not None
    assert client.process.stdout.readline() == "ready\n"
    assert client.reopen(id) >= 0
    # The fd was opened without close-on-exec.
    assert client.ioctl(fd, UNCLAIM) == -errno.EEXIST


def test_fds_close_on_exec_only_if_that_was_asked_for(client: Program) -> None:
    _, id = client.unclaimed()
    kept = [client.ask(f"open {type} {id} 0 -1 0 -1") for type in (PERSISTENT, 1)]
    gone = [client.ask(f"open {type} {id} 0 -1 8 -1") for type in (PERSISTENT, 1)]
    client.begin("exec")
    assert client.process.stdout is not None
    assert client.process.stdout.readline() == "ready\n"
    assert all(client.ask(f"read {fd}") >= 0 for fd in kept)
    assert [client.ask(f"read {fd}") for fd in gone] == [-errno.EBADF] * 2


def test_a_number_that_is_used_again_means_the_new_file(client: Program) -> None:
    fd, id = client.unclaimed()
    again = client.reopen(id)
    client.ask(f"close {again}")
    own = client.open(SOFTWARE, CPU_CLOCK)
    assert own == again
    assert client.ioctl(own, DISABLE) == 0
    assert client.ask(f"read {own}") == client.ask(f"read {own}")
    assert client.ask(f"read {fd}") < client.ask(f"read {fd}")


def test_a_fd_is_known_under_every_number(client: Program) -> None:
    fd = client.open(SOFTWARE, CPU_CLOCK)
    assert client.ask(f"dup2 {fd} 77") == 77
    client.ask(f"close {fd}")
    assert client.ioctl(77, UNCLAIM) > 0


def test_a_fd_that_was_passed_over_a_socket_is_known(client: Program) -> None:
    fd = client.open(SOFTWARE, CPU_CLOCK)
    client.ask(f"send {fd}")
    client.ask(f"close {fd}")
    assert client.ioctl(client.ask("receive"), UNCLAIM) > 0


def test_no_call_fails_in_a_storm_of_signals_with_SA_RESTART(client: Program) -> None:
    assert client.ask("alarm 2000") == 0


def test_a_call_that_gives_EINTR_has_done_nothing(client: Program) -> None:
    assert client.ask("storm 500") == 0
    assert perfkeep.recordings() == []


@pytest.mark.skipif(
    [*map(int, os.uname().release.split("-")[0].split(".")[:2])] < [5, 19],
    reason="before Linux 5.19 any signal with a handler ends the wait",
)
def test_no_signal_ends_a_call_that_the_supervisor_has_received(
    client: Program, instance: Path, eventually: Eventually
) -> None:
    perfkeep.recordings()
    fd = client.open(SOFTWARE, CPU_CLOCK)
    broker = int(Path(f"{instance}.lock").read_text().split()[1])
    os.kill(broker, signal.SIGSTOP)
    try:
        client.begin(f"unclaim_in_storm {fd}")
        # Signals that are pending while the call waits: none of them reaches its handler.
        status = Path(f"/proc/{client.process.pid}/status")
        alarm = 1 << signal.SIGALRM - 1
        eventually(
            lambda: (
                int(status.read_text().partition("ShdPnd:\t")[2].split()[0], 16) & alarm
                and "seccomp" in Path(f"/proc/{client.process.pid}/wchan").read_text()
            )
        )
    finally:
        os.kill(broker, signal.SIGCONT)
    assert client.answer() > 0
    assert len(perfkeep.recordings()) == 1


def test_a_pointer_that_changes_meanwhile_gains_nothing(client: Program) -> None:
    _, id = client.unclaimed()
    assert client.ask(f"race 3000 {id}") == 0
    assert len(perfkeep.recordings()) == 1


@requires(root)
def test_a_program_with_other_rights_gets_what_those_allow(launch: Launch) -> None:
    paranoid = int(Path("/proc/sys/kernel/perf_event_paranoid").read_text())
    client = launch()
    fd, id = client.unclaimed()
    assert client.ask("setuid 65534") == 0
    opened = client.open(SOFTWARE, CPU_CLOCK)
    assert opened == -errno.EACCES if paranoid > 0 else opened >= 0
    assert client.ioctl(fd, UNCLAIM) == -errno.EACCES
    assert client.reopen(id) == -errno.EACCES
    assert client.open(SOFTWARE, CPU_CLOCK, 0, f"flags={1 << 41}") == -errno.EACCES


@requires(root)
@pytest.mark.parametrize(
    "less",
    [
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"],
        ["setpriv", "--bounding-set=-perfmon,-sys_admin", "--inh-caps=-perfmon,-sys_admin"],
        ["unshare", "--user", "--map-root-user"],
        ["unshare", "--pid", "--fork"],
    ],
    ids=" ".join,
)
def test_whatever_a_program_gives_up_its_supervisor_does_not_give_back(
    launch: Launch, less: list[str]
) -> None:
    plain, under = launch(under=less), launch(under=[*EXEC, *less])
    calls = [f"open {SOFTWARE} {CPU_CLOCK} {cpu} {pid} 0 -1" for cpu, pid in ((0, -1), (-1, 0))]
    seen = [[min(program.ask(call), 0) for call in calls] for program in (plain, under)]
    assert seen[0] == seen[1]
    refused = -errno.EACCES
    assert under.open(SOFTWARE, CPU_CLOCK, 0, f"flags={1 << 41}") == refused
    assert under.reopen(1) == refused


@requires(i386)
def test_32_bit_calls_have_it_as_well(client: Program) -> None:
    fd = client.ask(f"compat_open 0 {SOFTWARE} {CPU_CLOCK}")
    assert fd >= 0
    id = client.ask(f"compat_ioctl {fd} {UNCLAIM}")
    assert id > 0
    again = client.ask(f"compat_open 0 {PERSISTENT} {id}")
    assert client.ask(f"read {fd}") < client.ask(f"read {again}")


@requires(uprobes)
def test_a_probe_s_path_is_read_from_the_program_s_memory(launch: Launch, tmp_path: Path) -> None:
    type = int(Path("/sys/bus/event_source/devices/uprobe/type").read_text())
    binary = os.path.realpath(sys.executable)
    client, plain = launch(), launch(under=["env"])
    for path in (binary, os.path.relpath(binary), "/does/not/exist", ""):
        fields = f"uprobe={path} config2=0x1000"
        got = client.open(type, 0, 0, fields)
        expected = plain.open(type, 0, 0, fields)
        assert (got >= 0) == (expected >= 0) and (got >= 0 or got == expected), path
    fd = client.open(type, 0, 0, f"uprobe={binary} config2=0x1000")
    assert client.ioctl(fd, UNCLAIM) > 0
    assert perfkeep.recordings()[0].info.events[0].event == f"uprobe:{binary}:0x1000"


# --- the supervisor may die -------------------------------------------------------------------


def test_without_its_supervisor_a_program_goes_on_and_trapped_calls_give_ENOSYS(
    client: Program, instance: Path, eventually: Eventually
) -> None:
    fd, _ = client.unclaimed()
    (pid,) = supervisors(instance)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert client.open(SOFTWARE, CPU_CLOCK) == -errno.ENOSYS
    assert client.ioctl(fd, UNCLAIM) == -errno.ENOSYS
    assert client.ioctl(0, DISABLE) == -errno.ENOSYS
    assert client.ioctl(fd, ENABLE) == 0  # not trapped
    assert client.ask(f"read {fd}") > 0
    assert perfkeep.recordings()[0].info.state == "running"


def test_a_call_that_waits_when_the_supervisor_is_killed_gives_ENOSYS(
    client: Program, instance: Path, eventually: Eventually
) -> None:
    (pid,) = supervisors(instance)
    os.kill(pid, signal.SIGSTOP)
    threads = [path / "stat" for path in Path(f"/proc/{pid}/task").iterdir()]
    eventually(lambda: all(b") T " in stat.read_bytes() for stat in threads))
    client.begin(f"open {SOFTWARE} {CPU_CLOCK} 0 -1 0 -1")
    eventually(lambda: b"298 " in Path(f"/proc/{client.process.pid}/syscall").read_bytes()
               or "seccomp" in Path(f"/proc/{client.process.pid}/wchan").read_text())  # fmt: skip
    os.kill(pid, signal.SIGKILL)
    assert client.answer() == -errno.ENOSYS


TWO_AT_ONCE = """
import os, sys, threading
from perfkeep.abi.perf_event import Attr, PERF_TYPE_PERSISTENT
from perfkeep.kernel.syscalls import perf_event_open

id = int(sys.argv[1])
def reopen():
    perf_event_open(Attr(type=PERF_TYPE_PERSISTENT, config=id), -1, 0).close()
    print("reopened", flush=True)
thread = threading.Thread(target=reopen)
thread.start()
for _ in range(100):
    perf_event_open(Attr(type=1), -1, 0).close()
print("opened", thread.is_alive(), flush=True)
thread.join()
"""


def test_a_broker_that_hangs_holds_up_no_ordinary_call(client: Program, instance: Path) -> None:
    _, id = client.unclaimed()
    broker = int(Path(f"{instance}.lock").read_text().split()[1])
    os.kill(broker, signal.SIGSTOP)
    command = [*EXEC, "--no-mount", "--", sys.executable, "-c", TWO_AT_ONCE, str(id)]
    command.remove("--")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as both:
        assert both.stdout is not None
        try:
            said = both.stdout.readline()
        finally:
            os.kill(broker, signal.SIGCONT)
        assert said == "opened True\n"
        assert both.stdout.readline() == "reopened\n"


def test_the_supervisor_ends_with_the_last_of_its_programs(
    launch: Launch, instance: Path, eventually: Eventually
) -> None:
    client = launch()
    (pid,) = supervisors(instance)
    client.end()
    eventually(lambda: not Path(f"/proc/{pid}").exists())
