"""Limits that the daemons run into: the new request fails and names it, and nothing else notices."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import perfkeep
from perfkeep.client.connection import disconnect
from perfkeep.errors import PerfkeepError
from perfkeep.testing.requirements import Need, perf_events, requires, root, tracefs
from support.caller import CALLS, Callers
from support.instance import Running
from support.waiting import Eventually

pytestmark = requires(perf_events, tracefs, root)

MEMORY = Path("/sys/fs/cgroup/memory")

memory_cgroup = Need(
    "memory_cgroup",
    lambda: None if os.access(MEMORY / "cgroup.procs", os.W_OK) else f"no {MEMORY} to write to",
)


@contextmanager
def files_limit(pid: int, more: int) -> Iterator[None]:
    """The process may open so many files more than it has."""
    used = max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + more, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("victim", [0, 1], ids=["broker", "keeper"])
def test_a_daemon_without_a_free_fd_refuses_the_new_and_keeps_the_old(
    running: Running, caller: Callers, tracefs_mounted: Path, victim: int
) -> None:
    one = caller(0)
    recording = perfkeep.start("flight", [CALLS], ring="256K")
    one.ask("call", 50)
    pids = running.pids()
    with files_limit(pids[victim], 6), pytest.raises(PerfkeepError) as caught:
        perfkeep.start("more", _MANY, ring="4K")
    assert caught.value.errno == errno.EMFILE
    assert "files" in str(caught.value)
    disconnect()
    one.ask("call", 50)
    assert [one.name for one in perfkeep.recordings()] == ["flight"]
    with recording.snapshot() as snapshot:
        assert one.numbers_in(snapshot) == list(range(1, 101))
    assert running.pids() == pids
    perfkeep.start("more", _MANY, ring="4K").claim()


#: More events than a daemon has fds left.
_MANY = [f"cpu-clock/period={period}/" for period in range(10**6, 10**6 + 20)]


@requires(memory_cgroup)
def test_a_daemon_whose_cgroup_has_no_memory_left_loses_nothing(
    running: Running,
    caller: Callers,
    tracefs_mounted: Path,
    eventually: Eventually,
) -> None:
    """The kernel may kill the broker for it, which is what a kill is."""
    one = caller(0)
    recording = perfkeep.start("flight", [CALLS], ring="8M", cpus=[0])
    one.ask("call", 60000)
    group = MEMORY / f"perfkeep-test-{os.getpid()}"
    group.mkdir()
    try:
        broker, _ = running.pids()
        (group / "cgroup.procs").write_text(str(broker))
        used = int((group / "memory.usage_in_bytes").read_text())
        (group / "memory.limit_in_bytes").write_text(str(used + (2 << 20)))
        with pytest.raises(PerfkeepError):
            recording.snapshot().close()
        disconnect()
        (group / "memory.limit_in_bytes").write_text("-1")
        one.ask("call", 10)
        with recording.snapshot() as snapshot:
            numbers = one.numbers_in(snapshot)
        assert numbers[-1] == 60010 and numbers == list(range(numbers[0], 60011))
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            with suppress(OSError):
                (MEMORY / "cgroup.procs").write_text(pid)
        eventually(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()
