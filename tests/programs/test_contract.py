"""Each row of the contract, from C: what the system calls of a program that nobody changed give.

docs/contract.md says which test holds which row.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import perfkeep
from perfkeep.kernel import cpus
from perfkeep.testing.requirements import (
    compiler,
    perf_events,
    requires,
    seccomp_notification,
)
from support.program import (
    CLAIM,
    CPU_CLOCK,
    DISABLE,
    DUMMY,
    EXEC,
    PAUSE_OUTPUT,
    PERSISTENT,
    RESET,
    RING,
    SET_OUTPUT,
    SOFTWARE,
    TASK_CLOCK,
    UNCLAIM,
    Launch,
    Program,
)

pytestmark = requires(perf_events, compiler, seccomp_notification)

ONLINE = cpus.online()
TWO_CPUS = pytest.mark.skipif(len(ONLINE) < 2, reason="needs two CPUs that are online")
PERSISTENT_BIT = f"flags={1 << 41}"


def counts(client: Program, fd: int) -> bool:
    """Whether a CPU clock runs."""
    return client.ask(f"read {fd}") < client.ask(f"read {fd}")


# --- UNCLAIM ----------------------------------------------------------------------------------


@pytest.mark.parametrize("linked", ["dynamic", "static"])
def test_an_unclaimed_event_outlives_the_program_that_opened_it(
    launch: Launch, linked: str
) -> None:
    client = launch(linked)
    fd, id = client.unclaimed()
    before = client.ask(f"read {fd}")
    client.end()
    (recording,) = perfkeep.recordings()
    assert (recording.info.id, recording.name) == (id, str(id))
    assert recording.stat().events[0].per_cpu[0].value > before > 0


def test_unclaim_returns_an_id_that_no_other_event_has(client: Program) -> None:
    first, second = client.unclaimed()[1], client.unclaimed()[1]
    assert 0 < first < second


def test_unclaim_gives_a_ring_of_512_KiB_and_one_page(client: Program) -> None:
    fd, _ = client.unclaimed()
    assert client.ask(f"mmap {fd} {RING} r") == 0
    for wrong in (RING // 2, RING * 2, 0):
        assert client.ask(f"mmap {fd} {wrong} r") == -errno.EINVAL


@pytest.mark.parametrize("disabled", [0, 1])
def test_unclaim_leaves_the_enable_state_alone(client: Program, disabled: int) -> None:
    fd = client.open(SOFTWARE, CPU_CLOCK, 0, f"flags={disabled}")
    assert client.ioctl(fd, UNCLAIM) > 0
    assert counts(client, fd) is not bool(disabled)
    assert perfkeep.recordings()[0].info.state == ("disabled" if disabled else "running")


def test_unclaim_of_an_event_without_a_cpu_EINVAL(client: Program) -> None:
    fd = client.open(SOFTWARE, TASK_CLOCK, -1, pid=0)
    assert fd >= 0
    assert client.ioctl(fd, UNCLAIM) == -errno.EINVAL


def test_unclaim_of_a_task_s_event_on_one_cpu_EINVAL(client: Program) -> None:
    fd = client.open(SOFTWARE, TASK_CLOCK, 0, pid=0)
    assert fd >= 0
    assert client.ioctl(fd, UNCLAIM) == -errno.EINVAL


def test_unclaim_of_a_persistent_event_EEXIST(client: Program) -> None:
    fd, id = client.unclaimed()
    assert client.ioctl(fd, UNCLAIM) == -errno.EEXIST
    assert client.ioctl(client.reopen(id), UNCLAIM) == -errno.EEXIST


def test_unclaim_of_an_event_with_a_ring_EBUSY(client: Program) -> None:
    fd = client.open(SOFTWARE, CPU_CLOCK)
    assert client.ask(f"mmap {fd} {RING} r") == 0
    assert client.ioctl(fd, UNCLAIM) == -errno.EBUSY
    assert perfkeep.recordings() == []


def test_unclaim_of_a_file_that_is_no_event_is_the_kernel_s_to_answer(client: Program) -> None:
    assert client.ioctl(0, UNCLAIM) == -errno.ENOTTY
    assert client.ioctl(999, UNCLAIM) == -errno.EBADF


# --- CLAIM ------------------------------------------------------------------------------------


def test_a_claimed_event_goes_on_until_its_last_fd_is_closed(client: Program) -> None:
    fd, id = client.unclaimed()
    assert client.ioctl(fd, CLAIM) == 0
    assert perfkeep.recordings() == []
    assert counts(client, fd)
    assert client.reopen(id) == -errno.ENOENT


def test_an_event_may_be_unclaimed_and_claimed_again_and_again(client: Program) -> None:
    fd, first = client.unclaimed()
    ids = [first]
    for _ in range(100):
        assert client.ioctl(fd, CLAIM) == 0
        ids.append(client.ioctl(fd, UNCLAIM))
        assert ids[-1] > ids[-2], "the ring of before is unmapped when CLAIM returns"


def test_claim_through_a_reopened_fd_ends_it_too(launch: Launch) -> None:
    _, id = launch().unclaimed()
    other = launch()
    assert other.ioctl(other.reopen(id), CLAIM) == 0
    assert perfkeep.recordings() == []


def test_claim_of_what_is_not_persistent_EINVAL(client: Program) -> None:
    assert client.ioctl(client.open(SOFTWARE, CPU_CLOCK), CLAIM) == -errno.EINVAL
    assert client.ioctl(client.open(SOFTWARE, TASK_CLOCK, -1, pid=0), CLAIM) == -errno.EINVAL


# --- reopening --------------------------------------------------------------------------------


@pytest.mark.parametrize("linked", ["dynamic", "static"])
def test_a_reopened_event_is_the_same_running_event(launch: Launch, linked: str) -> None:
    first = launch(linked)
    fd, id = first.unclaimed()
    before = first.ask(f"read {fd}")
    first.end()
    second = launch(linked)
    again = second.reopen(id)
    assert second.ask(f"read {again}") > before


def test_every_other_field_of_the_attr_is_ignored(client: Program) -> None:
    _, id = client.unclaimed()
    nonsense = ["config1=6", "config2=77", f"flags={1 << 60}", "sample_type=0xffffffffffff"]
    assert client.reopen(id, 0, *nonsense) >= 0
    assert client.ask(f"open {PERSISTENT} {id} 0 12345 0 -1") >= 0  # the pid as well


def test_the_caller_s_attr_tells_how_the_event_is_read(client: Program) -> None:
    fd = client.open(
        SOFTWARE, CPU_CLOCK, 0, "period=1000000", "sample_type=7", "read_format=3", "flags=1"
    )
    id = client.ioctl(fd, UNCLAIM)
    assert client.reopen(id) >= 0
    told = {name: client.ask(f"attr {name}") for name in ("period", "sample_type", "read_format")}
    assert told == {"period": 1000000, "sample_type": 7, "read_format": 3}
    assert client.ask("attr type") == PERSISTENT
    assert client.ask("attr config") == id


def test_an_attr_that_may_not_be_written_is_no_hindrance(client: Program) -> None:
    _, id = client.unclaimed()
    assert client.ask(f"readonly {id} 0") >= 0


@pytest.mark.parametrize("cpu", [-1, -2, max(cpus.possible()) + 1, 1 << 20])
def test_a_cpu_that_cannot_be_EINVAL(client: Program, cpu: int) -> None:
    assert client.reopen(client.unclaimed()[1], cpu) == -errno.EINVAL


@pytest.mark.parametrize("id", [0, 999, 2**63, 2**64 - 1])
def test_an_id_that_nobody_has_ENOENT(client: Program, id: int) -> None:
    client.unclaimed()
    assert client.reopen(id) == -errno.ENOENT


@TWO_CPUS
def test_an_id_that_lives_on_another_cpu_ENOENT(client: Program) -> None:
    assert client.reopen(client.unclaimed(0)[1], ONLINE[-1]) == -errno.ENOENT


def test_an_event_of_somebody_else_EACCES(
    client: Program, launch: Launch, instance: Path, built: Callable[[str], Path]
) -> None:
    _, id = client.unclaimed()
    other = launch()
    assert other.ask("setuid 65534") == 0
    assert other.reopen(id) == -errno.EACCES


@TWO_CPUS
def test_a_recording_on_all_cpus_is_reopened_by_one_id(client: Program) -> None:
    perfkeep.start("all", ["cpu-clock"], ring="64K")
    id = perfkeep.recordings()[0].info.id
    fds = [client.reopen(id, cpu) for cpu in ONLINE]
    assert all(counts(client, fd) for fd in fds)


# --- attr.persistent --------------------------------------------------------------------------


def test_the_persistent_bit_opens_and_unclaims_in_one_step(client: Program) -> None:
    fd = client.open(SOFTWARE, CPU_CLOCK, 0, PERSISTENT_BIT)
    assert fd >= 0 and counts(client, fd)
    (recording,) = perfkeep.recordings()
    assert client.ioctl(fd, UNCLAIM) == -errno.EEXIST
    assert client.ask(f"close {fd}") == 0
    assert recording.info.state == "running"


def test_the_persistent_bit_on_a_task_s_event_EINVAL(client: Program) -> None:
    assert client.open(SOFTWARE, CPU_CLOCK, -1, PERSISTENT_BIT, pid=0) == -errno.EINVAL
    assert client.open(SOFTWARE, CPU_CLOCK, 0, PERSISTENT_BIT, pid=0) == -errno.EINVAL


def test_the_persistent_bit_fails_as_the_kernel_would_and_leaves_nothing(client: Program) -> None:
    assert client.open(SOFTWARE, 999, 0, PERSISTENT_BIT) == -errno.ENOENT
    assert client.open(SOFTWARE, CPU_CLOCK, 4000, PERSISTENT_BIT) == -errno.EINVAL
    assert client.open(SOFTWARE, CPU_CLOCK, 0, f"flags={1 << 41 | 1 << 60}") == -errno.EINVAL
    assert perfkeep.recordings() == []


def test_a_program_that_may_open_no_more_files_makes_nothing_persistent_EMFILE(
    client: Program,
) -> None:
    client.ask("limit 10")
    while (fd := client.open(SOFTWARE, DUMMY)) >= 0:
        pass
    assert fd == -errno.EMFILE
    assert client.open(SOFTWARE, CPU_CLOCK, 0, PERSISTENT_BIT) == -errno.EMFILE
    assert perfkeep.recordings() == []


# --- mapping ----------------------------------------------------------------------------------


def test_two_readers_map_one_ring_at_its_own_size_only(launch: Launch) -> None:
    sampling = ["period=1000000", "sample_type=3"]
    first = launch()
    fd = first.open(SOFTWARE, CPU_CLOCK, 0, *sampling)
    id = first.ioctl(fd, UNCLAIM)
    heads = []
    for reader in (launch(), launch()):
        again = reader.reopen(id)
        assert reader.ask(f"mmap {again} {RING // 2} r") == -errno.EINVAL
        assert reader.ask(f"mmap {again} {RING} r") == 0
        heads.append(reader.ask("head"))
        reader.end()
    assert 0 < heads[0] <= heads[1]
    assert first.ask(f"mmap {fd} {RING} r") == 0
    assert first.ask("head") >= heads[1], "unmapping emptied the ring"


# --- what control means -----------------------------------------------------------------------


@pytest.mark.parametrize("command", [DISABLE, PAUSE_OUTPUT])
def test_a_reader_s_disable_succeeds_and_stops_nothing(launch: Launch, command: int) -> None:
    first, second = launch(), launch()
    fd, id = first.unclaimed()
    again = second.reopen(id)
    assert second.ioctl(again, command, 1) == 0
    assert counts(first, fd)


def test_a_reader_s_disable_stops_nothing_in_the_process_that_opened_it_either(
    client: Program,
) -> None:
    fd, id = client.unclaimed()
    assert client.ioctl(client.reopen(id), DISABLE) == 0
    assert counts(client, fd)


def test_the_opener_s_own_disable_stops_it(client: Program) -> None:
    fd, _ = client.unclaimed()
    assert client.ioctl(fd, DISABLE) == 0
    assert not counts(client, fd)


def test_after_claim_a_disable_is_an_ordinary_one_again(launch: Launch) -> None:
    first, second = launch(), launch()
    fd, id = first.unclaimed()
    again = second.reopen(id)
    perfkeep.recordings()[0].claim()
    assert second.ioctl(again, DISABLE) == 0
    assert not counts(first, fd)


def test_whoever_has_control_may_reset(launch: Launch) -> None:
    first, second = launch(), launch()
    fd, id = first.unclaimed()
    before = first.ask(f"read {fd}")
    again = second.reopen(id)
    assert second.ioctl(again, RESET) == 0
    assert second.ask(f"read {again}") < before + first.ask(f"read {fd}")


def test_a_reader_cannot_move_the_event_to_another_ring(launch: Launch) -> None:
    first, second = launch(), launch()
    fd, id = first.unclaimed()
    again, own = second.reopen(id), second.open(SOFTWARE, DUMMY)
    assert second.ask(f"mmap {own} 65536 r") == 0
    assert second.ioctl(again, SET_OUTPUT, own) == -errno.EINVAL
    assert second.ioctl(again, SET_OUTPUT, -1) == -errno.EINVAL
    assert first.ask(f"mmap {fd} {RING} r") == 0


def test_an_event_of_one_s_own_does_not_write_into_a_persistent_ring(launch: Launch) -> None:
    first, second = launch(), launch()
    _, id = first.unclaimed()
    again = second.reopen(id)
    own = second.open(SOFTWARE, CPU_CLOCK, 0, "period=100000", "sample_type=3")
    assert second.ioctl(own, SET_OUTPUT, again) == 0
    assert second.ask(f"mmap {again} {RING} r") == 0
    while second.ask(f"read {own}") < 20_000_000:  # 200 samples
        pass
    assert second.ask("head") == 0


@pytest.mark.parametrize("pid", [-1, 0], ids=["of a CPU", "of a task"])
@pytest.mark.parametrize("no_group", [0, 1])
def test_an_event_opened_with_FD_OUTPUT_does_not_write_into_a_persistent_ring(
    launch: Launch, pid: int, no_group: int
) -> None:
    first, second = launch(), launch()
    _, id = first.unclaimed()
    again = second.reopen(id)
    flags, fields = 2 | no_group, "period=100000 sample_type=3"
    own = second.ask(f"open {SOFTWARE} {CPU_CLOCK} 0 {pid} {flags} {again} {fields}")
    assert own >= 0
    assert second.ask(f"mmap {again} {RING} r") == 0
    # The task's event counts only on CPU 0, so the program stays there.
    os.sched_setaffinity(second.process.pid, {0})
    while second.ask(f"read {own}") < 20_000_000:  # 200 samples
        pass
    assert second.ask("head") == 0


# --- the same program without us --------------------------------------------------------------


def test_without_exec_the_kernel_knows_nothing_of_it(launch: Launch) -> None:
    client = launch(under=["env"])
    fd = client.open(SOFTWARE, CPU_CLOCK)
    assert client.ioctl(fd, UNCLAIM) == -errno.ENOTTY
    assert client.reopen(1) == -errno.ENOENT
    assert client.open(SOFTWARE, CPU_CLOCK, 0, PERSISTENT_BIT) == -errno.EINVAL


def test_nested_execs_are_one(launch: Launch) -> None:
    client = launch(under=[*EXEC, *EXEC])
    assert client.unclaimed()[1] == 1
    assert subprocess.run([*EXEC, "true"], check=False).returncode == 0
