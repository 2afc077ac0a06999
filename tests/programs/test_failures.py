"""The contract where something is missing: CPUs, memory, rights, the broker."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import perfkeep
from perfkeep.client import connection
from perfkeep.kernel import cpus
from perfkeep.testing.requirements import (
    compiler,
    cpu_hotplug,
    perf_events,
    requires,
    root,
    seccomp_notification,
    tracefs,
)
from support.instance import Running
from support.program import (
    CLAIM,
    CPU_CLOCK,
    EXEC,
    PERIOD,
    PERSISTENT,
    RING,
    SOFTWARE,
    UNCLAIM,
    Launch,
    Program,
)
from support.waiting import Eventually

pytestmark = requires(perf_events, compiler, seccomp_notification)

REFRESH, SET_FILTER, SET_BPF = 0x2402, 0x40082406, 0x40042408


@pytest.fixture
def offline() -> Iterator[Callable[[int], None]]:
    """Takes CPUs offline; they are online again afterwards."""
    taken: list[Path] = []

    def take(cpu: int) -> None:
        switch = Path(f"/sys/devices/system/cpu/cpu{cpu}/online")
        switch.write_text("0")
        taken.append(switch)

    yield take
    for switch in taken:
        switch.write_text("1")


@requires(cpu_hotplug)
def test_unclaim_of_an_event_whose_cpu_is_offline_ENOENT(
    client: Program, offline: Callable[[int], None]
) -> None:
    last = cpus.online()[-1]
    fd = client.open(SOFTWARE, CPU_CLOCK, last)
    offline(last)
    assert client.ioctl(fd, UNCLAIM) == -errno.ENOENT
    assert perfkeep.recordings() == []


@pytest.fixture
def limited() -> Iterator[None]:
    """The kernel holds to its limits on locked memory, as it does unless told otherwise."""
    paranoid = Path("/proc/sys/kernel/perf_event_paranoid")
    before = paranoid.read_text()
    paranoid.write_text("1")
    yield
    paranoid.write_text(before)


@requires(root)
def test_unclaim_beyond_the_limit_of_locked_memory_EPERM(launch: Launch, limited: None) -> None:
    """The broker that this starts has the same rights: those of a root without CAP_IPC_LOCK."""
    drop = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"]
    client = launch(under=["prlimit", "--memlock=0:0", *drop, *EXEC])
    # perf_event_mlock_kb allows one such ring for each CPU.
    answers = [
        client.ioctl(client.open(SOFTWARE, CPU_CLOCK), UNCLAIM)
        for _ in range(len(cpus.online()) + 1)
    ]
    assert answers[-1] == -errno.EPERM
    assert len(perfkeep.recordings()) == sum(answer > 0 for answer in answers)


def test_without_a_broker_every_call_that_needs_one_gives_EIO(
    client: Program, running: Running, eventually: Eventually
) -> None:
    fd, id = client.unclaimed()
    other = client.open(SOFTWARE, CPU_CLOCK)
    pids = running.pids()
    connection.disconnect()
    os.kill(pids[0], signal.SIGTERM)
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    # Nobody can start another one: what lies there is no socket, and is left alone.
    running.socket.mkdir()
    try:
        assert client.reopen(id) == -errno.EIO
        assert client.ioctl(other, UNCLAIM) == -errno.EIO
        assert client.ioctl(fd, CLAIM) == -errno.EIO
        assert client.open(SOFTWARE, CPU_CLOCK) >= 0
    finally:
        running.socket.rmdir()


@requires(root)
def test_claim_of_what_somebody_else_made_EACCES(client: Program) -> None:
    fd, _ = client.unclaimed()
    assert client.ask("setuid 65534") == 0
    assert client.ioctl(fd, CLAIM) == -errno.EACCES
    assert perfkeep.recordings()[0].info.state == "running"


def test_an_event_in_another_s_ring_cannot_be_mapped_EBUSY(client: Program) -> None:
    perfkeep.start("two", ["cpu-clock", "context-switches"], ring=RING)
    first, second = perfkeep.recordings()[0].info.events
    assert client.ask(f"mmap {client.reopen(first.id)} {RING} r") == 0
    got = client.ask(f"mmap {client.reopen(second.id)} {RING} r")
    assert got == -errno.EBUSY or (got == 0 and os.uname().release < "6.17")


def test_whoever_has_control_may_set_a_period_and_a_program(client: Program) -> None:
    """As far as the kernel goes along: its answers are those of an ordinary event."""
    fd = client.open(SOFTWARE, CPU_CLOCK, 0, "period=1000000", "sample_type=3")
    again = client.reopen(client.ioctl(fd, UNCLAIM))
    plain = client.open(SOFTWARE, CPU_CLOCK, 0, "period=1000000", "sample_type=3")
    for command, argument in ((PERIOD, 0), (SET_BPF, 999), (SET_BPF, -1), (REFRESH, 1)):
        assert client.ioctl(again, command, argument) == client.ioctl(plain, command, argument)
    assert client.ask(f"period {again} 5000000") == 0


@requires(tracefs)
def test_whoever_has_control_may_filter(client: Program) -> None:
    perfkeep.start("switches", ["sched:sched_switch"], cpus=[0], ring="64K")
    fd = client.reopen(perfkeep.recordings()[0].info.id)
    assert client.ioctl(fd, SET_FILTER, 0) in (-errno.EFAULT, -errno.EINVAL)
    assert client.ask(f"filter {fd} no_such_field==1") == -errno.EINVAL
    assert client.ask(f"filter {fd} prev_pid==1") == 0
    assert client.open(PERSISTENT, 1 << 40) == -errno.ENOENT
