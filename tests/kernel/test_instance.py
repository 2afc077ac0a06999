"""Keeper and broker as processes: they start by themselves, survive what happens, and end."""

from __future__ import annotations

import errno
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import perfkeep
from perfkeep.client import connection
from perfkeep.client.connection import Connection
from perfkeep.errors import PerfkeepError, Unreachable
from perfkeep.testing.requirements import perf_events, requires
from perfkeep.wire import messages
from perfkeep.wire.instance import Instance, current
from perfkeep.wire.messages import Nothing
from support.instance import Running, names, status
from support.waiting import Eventually

pytestmark = requires(perf_events)

START = "import perfkeep; perfkeep.start({name!r}, ['cpu-clock'], cpus=[0], ring='64K')"
SIGNALS = [signal.SIGTERM, signal.SIGKILL]


def first_command(name: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", START.format(name=name)], **options)


def is_there(pid: int) -> bool:
    """A zombie that nobody has waited for yet is not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def count() -> int:
    (event,) = perfkeep.recordings()[0].stat().events
    return sum(one.value for one in event.per_cpu)


# --- starting ---------------------------------------------------------------------------------


def test_the_first_command_starts_both_and_they_detach(
    running: Running, eventually: Eventually
) -> None:
    with first_command("flight") as command:
        assert command.wait(20) == 0
    broker, keeper = running.pids()
    assert names() == ["flight"]
    here = (os.getpid(), command.pid)
    stats = {pid: Path(f"/proc/{pid}/stat").read_text() for pid in (broker, keeper)}
    for stat in stats.values():
        _, parent, _, session, terminal = stat.rpartition(")")[2].split()[:5]
        assert int(parent) not in here
        assert int(session) == broker != os.getsid(0)
        assert terminal == "0"
    for pid, comm in ((broker, "perfkeep-broker"), (keeper, "perfkeep-keeper")):
        assert Path(f"/proc/{pid}/comm").read_text().strip() == comm
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"


def test_they_survive_the_terminal_that_they_were_started_from(running: Running) -> None:
    ours, theirs = os.openpty()
    with first_command(
        "flight", stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as command:
        os.close(theirs)
        assert command.wait(20) == 0
    os.close(ours)
    with suppress(ProcessLookupError):
        os.killpg(command.pid, signal.SIGHUP)
    assert all(is_there(pid) for pid in running.pids())
    assert names() == ["flight"]


def processes_of(socket: Path) -> set[int]:
    """Whoever was started with this instance, but for this test."""
    named, found = f"PERFKEEP_SOCKET={socket}".encode(), set()
    for entry in os.listdir("/proc"):
        with suppress(OSError):
            if entry.isdecimal() and named in Path(f"/proc/{entry}/environ").read_bytes():
                found.add(int(entry))
    return found - {os.getpid()}


def test_many_first_commands_at_the_same_moment_make_one_instance(
    running: Running, eventually: Eventually
) -> None:
    commands = [first_command(f"flight{number}") for number in range(8)]
    for command in commands:
        with command:
            assert command.wait(30) == 0
    assert sorted(names()) == [f"flight{number}" for number in range(8)]
    # Brokers that came second leave as soon as they see the lock.
    eventually(lambda: processes_of(running.socket) == set(running.pids()))


def test_status_names_socket_log_and_both_processes(
    running: Running, flight: perfkeep.Recording
) -> None:
    found = status()
    assert found.socket == str(running.socket)
    assert (found.broker.pid, found.keeper.pid) == running.pids()
    assert (found.recordings, found.events) == (1, 1)
    assert Path(found.log).is_file()
    assert "serving" in Path(found.log).read_text()
    assert (found.recordings, found.events, found.ring_bytes) == (1, 1, 64 << 10)
    assert found.broker.rss_bytes > found.keeper.rss_bytes > 0


def test_nobody_else_can_reach_socket_lock_or_log(
    running: Running, flight: perfkeep.Recording
) -> None:
    for suffix in ("", ".lock", ".log"):
        assert os.stat(f"{running.socket}{suffix}").st_mode & 0o077 == 0


def test_a_directory_that_others_can_change_is_not_used(running: Running) -> None:
    running.socket.parent.chmod(0o777)
    with pytest.raises(PerfkeepError, match="that only you or root can change") as caught:
        perfkeep.recordings()
    assert caught.value.errno == errno.EPERM
    running.socket.parent.chmod(0o700)
    assert not list(running.socket.parent.iterdir())


# --- the socket -------------------------------------------------------------------------------


def test_a_stale_socket_file_is_replaced(running: Running) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(running.socket))
    perfkeep.start("flight", ["cpu-clock"], cpus=[0], ring="64K")
    assert names() == ["flight"]


def test_a_file_where_the_socket_should_be_is_left_alone(running: Running) -> None:
    running.socket.write_text("mine")
    with pytest.raises(PerfkeepError, match="is no socket") as caught:
        perfkeep.recordings()
    assert caught.value.errno == errno.EEXIST
    assert running.socket.read_text() == "mine"
    assert [path.name for path in running.socket.parent.iterdir()] == ["s"]
    running.socket.unlink()


def test_a_file_that_takes_the_sockets_place_outlives_the_instance(
    running: Running, flight: perfkeep.Recording, eventually: Eventually
) -> None:
    broker, keeper = running.pids()
    (running.socket.parent / "new").write_text("mine")
    os.rename(running.socket.parent / "new", running.socket)
    os.kill(broker, signal.SIGTERM)
    eventually(lambda: not is_there(broker) and not is_there(keeper))
    assert running.socket.read_text() == "mine"
    running.socket.unlink()


def test_a_broker_that_cannot_start_is_not_waited_for(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Unreachable, match="no broker can be started"):
        perfkeep.recordings()


def test_a_deleted_socket_comes_back_with_the_recordings(
    running: Running, flight: perfkeep.Recording, eventually: Eventually
) -> None:
    before = running.pids()
    connection.disconnect()
    for _ in range(3):
        running.socket.unlink()
        assert names() == ["flight"]
        connection.disconnect()
    assert running.pids() == before


def test_a_directory_that_was_moved_away_comes_back_with_the_recordings(
    running: Running, flight: perfkeep.Recording, eventually: Eventually, tmp_path: Path
) -> None:
    before = running.pids()
    connection.disconnect()
    running.socket.parent.rename(tmp_path / "moved")
    eventually(running.socket.exists)
    assert names() == ["flight"]
    assert running.pids() == before


def test_a_deleted_directory_comes_back_with_the_recordings(
    running: Running, flight: perfkeep.Recording, eventually: Eventually
) -> None:
    before = running.pids()
    connection.disconnect()
    # So that it makes nothing anew while we are still deleting.
    os.kill(before[0], signal.SIGSTOP)
    try:
        shutil.rmtree(running.socket.parent)
    finally:
        os.kill(before[0], signal.SIGCONT)
    eventually(running.socket.exists)
    assert names() == ["flight"]
    assert running.pids() == before
    # The new lock is held as the old one was.
    connection.disconnect()
    running.socket.unlink()
    assert names() == ["flight"]


# --- a daemon dies ----------------------------------------------------------------------------


def replaced(running: Running, who: int, before: tuple[int, int]) -> bool:
    pids: tuple[int, int] = running.pids()
    return pids[who] != before[who]


def facts() -> object:
    """What must be the same after a daemon has died."""
    return perfkeep.client.recording.infos()


@pytest.mark.parametrize("who", [0, 1], ids=["broker", "keeper"])
def test_a_killed_daemon_is_replaced_and_nothing_is_lost(
    running: Running, flight: perfkeep.Recording, eventually: Eventually, who: int
) -> None:
    flight.add(["context-switches", "page-faults"])
    flight.remove(["context-switches"])
    perfkeep.start("second", ["cpu-clock"], ring="64K", enable=False)
    known, ids = facts(), [event.id for event in flight.info.events]
    with perfkeep.reopen(ids[0], 0) as event:
        kernel_id, counted = event.ids.kernel, event.read().value
        # Nobody but the instance holds it.
    before = running.pids()
    os.kill(before[who], signal.SIGKILL)
    eventually(lambda: running.pids()[who] != before[who])
    assert running.pids()[1 - who] == before[1 - who]
    assert facts() == known
    with perfkeep.reopen(ids[0], 0) as event:
        assert event.ids.kernel == kernel_id
        assert event.read().value > counted
    third = perfkeep.start("third", ["cpu-clock"], cpus=[0], ring="64K")
    assert third.info.id > max(ids)
    for name in ("flight", "second", "third"):
        perfkeep.Recording(name).claim()
    assert names() == []


def test_broker_and_keeper_may_die_in_turn(
    running: Running, flight: perfkeep.Recording, eventually: Eventually
) -> None:
    known = facts()
    for turn in range(4):
        before = running.pids()
        os.kill(before[turn % 2], signal.SIGKILL)
        eventually(partial(replaced, running, turn % 2, before))
        assert facts() == known


def test_the_ring_keeps_its_records_when_a_daemon_dies(
    running: Running, flight: perfkeep.Recording, eventually: Eventually
) -> None:
    (id,) = (event.id for event in flight.info.events)

    def ring() -> bytes:
        with perfkeep.reopen(id, 0) as event, event.mmap(64 << 10) as mapping:
            return mapping[4096:]

    eventually(lambda: any(ring()))
    flight.disable()
    recorded = ring()
    for who in (0, 1):
        before = running.pids()
        os.kill(before[who], signal.SIGKILL)
        eventually(partial(replaced, running, who, before))
        assert ring() == recorded


def test_a_request_that_a_death_cut_off_says_so(
    running: Running, flight: perfkeep.Recording
) -> None:
    broker, _ = running.pids()
    with Connection(current()) as cut:
        os.kill(broker, signal.SIGSTOP)
        cut.send("Disable", messages.Named("flight"))
        os.kill(broker, signal.SIGKILL)
        with pytest.raises(Unreachable, match="perfkeep ls") as caught:
            cut.receive(Nothing)
    assert caught.value.errno == errno.ECONNRESET
    assert names() == ["flight"]


# --- ending -----------------------------------------------------------------------------------


def test_told_to_end_both_end_and_take_the_socket_along(
    running: Running, flight: perfkeep.Recording, eventually: Eventually
) -> None:
    pids = running.pids()
    os.kill(pids[0], signal.SIGTERM)
    eventually(lambda: not any(is_there(pid) for pid in pids))
    assert not running.socket.exists()


def test_a_question_while_an_instance_ends_just_works(
    running: Running, flight: perfkeep.Recording, eventually: Eventually
) -> None:
    for _ in range(10):
        pids = running.pids()
        connection.disconnect()
        os.kill(pids[0], signal.SIGTERM)
        while is_there(pids[0]) or is_there(pids[1]):
            assert names() in (["flight"], [])  # of the one that ends, or of the next
            connection.disconnect()
        perfkeep.start("flight", ["cpu-clock"], cpus=[0], ring="64K")


def test_a_command_that_comes_while_the_last_instance_still_has_the_lock_just_works(
    running: Running,
    flight: perfkeep.Recording,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker, keeper = running.pids()
    connection.disconnect()
    os.kill(keeper, signal.SIGSTOP)
    launches = []

    def launch(where: Instance) -> None:
        launches.append(where)
        real_launch(where)
        with suppress(ProcessLookupError):
            os.kill(keeper, signal.SIGCONT)  # only now can the old instance end

    real_launch = connection.launch
    monkeypatch.setattr(connection, "launch", launch)
    try:
        os.kill(broker, signal.SIGTERM)
        eventually(lambda: not running.socket.exists())
        assert names() == []
    finally:
        with suppress(ProcessLookupError):
            os.kill(keeper, signal.SIGCONT)
    assert len(launches) > 1
    assert running.pids() != (broker, keeper)


def test_an_instance_that_nobody_needs_ends_by_itself(
    running: Running, flight: perfkeep.Recording, eventually: Eventually
) -> None:
    pids = running.pids()
    flight.claim()
    connection.disconnect()
    eventually(lambda: not any(is_there(pid) for pid in pids))
    assert not running.socket.exists()
    assert names() == []


def test_a_quiet_instance_with_a_recording_does_not_end(
    running: Running, flight: perfkeep.Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.disconnect()
    broker, _ = running.pids()
    handle = os.pidfd_open(broker)
    try:
        # Longer than an instance without recordings stays.
        assert select.select([handle], [], [], 6) == ([], [], [])
    finally:
        os.close(handle)
    assert names() == ["flight"]
