"""The instance as a service: what it takes from a service manager, and what it gives."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import perfkeep
from perfkeep.client.connection import disconnect
from perfkeep.testing.load import heartbeat
from perfkeep.testing.requirements import perf_events, requires, root, tracefs
from support.waiting import Eventually

pytestmark = requires(perf_events)

# What systemd does: the fds from 3 on, and the pid that they are for.
_START = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "perfkeep", "daemon", "--foreground"])
"""


class Manager:
    """As much of systemd as a service sees: a socket to tell it things, and an fd store."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "notify")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.path)
        self.sock.setblocking(False)
        self.store: dict[str, int] = {}
        self.said: list[str] = []
        self.main_pid = 0

    def listen(self) -> None:
        """Take in what was told."""
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self.sock, 4096, 4)
            except BlockingIOError:
                return
            fields = dict(line.split("=", 1) for line in data.decode().split("\n"))
            self.said += fields
            self.main_pid = int(fields.get("MAINPID", self.main_pid))
            if "FDSTORE" in fields:
                assert fields["FDPOLL"] == "0"
                with suppress(KeyError):  # the same event again, which systemd keeps once
                    os.close(self.store.pop(fields["FDNAME"]))
                self.store[fields["FDNAME"]] = fds[0]
            elif "FDSTOREREMOVE" in fields:
                os.close(self.store.pop(fields["FDNAME"]))

    def start(self, *sockets: tuple[str, int]) -> None:
        """Start the service with these fds, and what is in the store."""
        passed = [*sockets, *self.store.items()]
        environment = os.environ | {
            "NOTIFY_SOCKET": self.path,
            "LISTEN_FDS": str(len(passed)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in passed),
        }
        actions: list[Any] = []
        high = [(name, os.dup(fd)) for name, fd in passed]
        for at, (_, fd) in enumerate(high):
            actions.append((os.POSIX_SPAWN_DUP2, fd, 200 + at))
        for at in range(len(high)):
            actions.append((os.POSIX_SPAWN_DUP2, 200 + at, 3 + at))
            actions.append((os.POSIX_SPAWN_CLOSE, 200 + at))
        self.pid = os.posix_spawn(
            sys.executable, [sys.executable, "-c", _START], environment, file_actions=actions
        )
        for _, fd in high:
            os.close(fd)

    def wait_ready(self, eventually: Eventually) -> None:
        self.said.clear()

        def ready() -> bool:
            self.listen()
            return "READY" in self.said

        eventually(ready)

    def reap(self) -> None:
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def close(self) -> None:
        for fd in self.store.values():
            os.close(fd)
        self.sock.close()


@pytest.fixture
def manager(instance: Path) -> Iterator[Manager]:
    made = Manager(instance.parent)
    yield made
    disconnect()
    with suppress(ProcessLookupError, AttributeError):
        os.kill(made.pid, signal.SIGTERM)
        made.reap()
    made.close()


def count(name: str) -> int:
    (event,) = perfkeep.Recording(name).stat().events
    return sum(one.value for one in event.per_cpu)


def test_it_serves_on_the_socket_that_it_is_given_and_says_when_it_is_ready(
    instance: Path, manager: Manager, eventually: Eventually
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(instance))
        listener.listen()
        inode = instance.stat().st_ino
        manager.start(("perfkeep.socket", listener.fileno()))
        manager.wait_ready(eventually)
    assert not perfkeep.recordings()
    assert instance.stat().st_ino == inode
    assert Path(f"{instance}.lock").read_text().split()[1] == str(manager.pid)


def test_it_stays_in_the_foreground_and_stops_when_it_is_told_to(
    instance: Path, eventually: Eventually
) -> None:
    command = [sys.executable, "-m", "perfkeep", "daemon", "--foreground"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as service:
        eventually(instance.exists)
        perfkeep.start("flight", ["cpu-clock"], cpus=[0], ring="64K")
        disconnect()
        second = subprocess.run(command, capture_output=True, text=True)
        assert second.returncode == 1 and "already" in second.stderr
        service.terminate()
        assert service.wait(20) == 0
        assert service.stdout is not None and b"serving" in service.stdout.read()
    assert not instance.exists()


# As pid 1 of namespaces of its own, with no more than perfkeep-daemon(1) asks for.
_CONTAINED = """
python=$1
$python -m perfkeep daemon --foreground & daemon=$!
until [ -S "$PERFKEEP_SOCKET" ]; do sleep 0.05; done
$python -m perfkeep start flight -e sched:sched_switch -e cpu-clock/freq=99/ --ring 64K
$python -m perfkeep snapshot flight -o flight.data
$python -m perfkeep status
kill $daemon
wait $daemon
echo "ended with $?"
"""


@requires(root, tracefs)
@pytest.mark.usefixtures("tracefs_mounted")
def test_in_a_container_the_documented_capabilities_are_enough(
    instance: Path, tmp_path: Path
) -> None:
    contain = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--uts", "--ipc", "--net"]
    limit = ["setpriv", "--bounding-set=-all,+perfmon,+ipc_lock", "--inh-caps=-all"]
    done = subprocess.run(
        [*contain, *limit, "sh", "-c", _CONTAINED, "sh", sys.executable],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert "capabilities ipc_lock, for children perfmon" in done.stdout, done.stdout + done.stderr
    assert "ended with 0" in done.stdout
    (note,) = done.stderr.splitlines()
    assert note.startswith("perfkeep: this process is in a PID namespace of its own: ")
    assert (tmp_path / "flight.data").stat().st_size > 1000


def test_the_manager_is_told_when_another_process_is_the_main_one(
    instance: Path, manager: Manager, eventually: Eventually
) -> None:
    manager.start()
    manager.wait_ready(eventually)
    assert manager.main_pid == manager.pid
    perfkeep.start("flight", ["cpu-clock"], cpus=[0], ring="64K")
    os.kill(manager.pid, signal.SIGKILL)
    manager.reap()
    disconnect()
    manager.wait_ready(eventually)
    assert Path(f"{instance}.lock").read_text().split()[1] == str(manager.main_pid)
    disconnect()
    manager.pid = manager.main_pid


def test_counts_go_on_in_the_fd_store_when_both_daemons_die(
    instance: Path, manager: Manager, eventually: Eventually
) -> None:
    manager.start()
    manager.wait_ready(eventually)
    with heartbeat():
        perfkeep.start("flight", ["context-switches"], cpus=[0], ring="64K")
        perfkeep.start("other", ["context-switches"], cpus=[0], ring="64K").claim()
        manager.listen()
        assert [name.split("/")[1] for name in manager.store] == ["e"]
        before = count("flight")
        disconnect()
        pids = [
            int(word) for word in Path(f"{instance}.lock").read_text().split() if word.isdecimal()
        ]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                os.kill(pid, number)
        manager.reap()
        eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
        select.select([], [], [], 0.1)  # beats that nobody but the store counts
        manager.start()
        manager.wait_ready(eventually)
        recording = perfkeep.Recording("flight")
        assert count("flight") > before + 100
        (gap,) = recording.info.gaps
        assert gap.until_ns is not None and not recording.info.problem
        eventually(lambda: samples(recording) > 0)


def samples(recording: perfkeep.Recording) -> int:
    with recording.snapshot() as snapshot:
        return snapshot.coverage.cpus[0].records


def test_what_is_stopped_by_its_manager_comes_back_when_it_is_started_again(
    instance: Path, manager: Manager, eventually: Eventually
) -> None:
    manager.start()
    manager.wait_ready(eventually)
    perfkeep.start("flight", ["cpu-clock"], cpus=[0], ring="64K")
    disconnect()
    os.kill(manager.pid, signal.SIGTERM)
    manager.reap()
    manager.listen()
    assert "STOPPING" in manager.said
    manager.start()
    manager.wait_ready(eventually)
    assert [one.name for one in perfkeep.recordings()] == ["flight"]
