"""`perfkeep exec` as a command: what it runs is as it would be without it, and what it starts beside
it is none of the program's business.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import perfkeep
from perfkeep.testing.requirements import (
    compiler,
    perf_events,
    requires,
    root,
    seccomp_notification,
)
from support.commands import PERFKEEP
from support.program import EXEC, Launch
from support.waiting import Eventually

pytestmark = requires(perf_events, compiler, seccomp_notification)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], -signal.SIGTERM),
        (["/does/not/exist"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_the_exit_code_is_the_program_s(instance: Path, command: list[str], code: int) -> None:
    assert subprocess.run([*EXEC, *command], check=False, capture_output=True).returncode == code


def test_nothing_to_run_is_said_in_a_sentence(instance: Path) -> None:
    done = subprocess.run([*PERFKEEP, "exec"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    usage, sentence, hint = done.stderr.splitlines()
    assert usage.startswith("usage: perfkeep exec") and "no program was named" in sentence
    assert hint.startswith("hint: ")


def test_standard_streams_belong_to_the_program_alone(instance: Path) -> None:
    """A pipe is at its end when the program is, though its supervisor may be there still."""
    done = subprocess.run(
        [*EXEC, "sh", "-c", "cat; echo said >&2"],
        input="given",
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("given", "said\n")


_LOOK = """
import json, os, re, resource, signal, sys
# Queued signals are those of the whole user; the limit is the program's.
status = re.sub("(SigQ:.)[0-9]*/", "\\\\1", open("/proc/self/status").read()).splitlines()
wanted = ("Sig", "Shd", "Umask", "PPid", "Uid", "Gid", "Cap", "Groups", "NoNewPrivs")
json.dump({
    "fds": sorted(f for f in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{f}")),
    "environ": open("/proc/self/environ").read().split(chr(0)),
    "status": [line for line in status if line.startswith(wanted)],
    "limits": [resource.getrlimit(n) for n in range(16)],
    "where": [os.getcwd(), os.getpgrp() == int(sys.argv[1]), os.getsid(0)],
}, sys.stdout)
"""


@requires(root)
@pytest.mark.parametrize("environment", [{}, {"LANG": "C"}, {"LC_ALL": "C"}, {"LC_CTYPE": "POSIX"}])
def test_a_program_finds_everything_as_it_would_without_us(
    instance: Path, environment: dict[str, str]
) -> None:
    """Files, environment, signals, limits, rights. Python itself changes some of them."""
    names = ("PERFKEEP_SOCKET", "PATH", "VIRTUAL_ENV")
    environment = environment | {name: os.environ[name] for name in names if name in os.environ}
    look = [
        "/bin/sh",
        "-c",
        'exec "$0" -I -S -c "$1" "$2"',
        sys.executable,
        _LOOK,
        str(os.getpgrp()),
    ]
    seen = [
        subprocess.run(
            [*before, *look], env=environment, capture_output=True, text=True, check=True,
            restore_signals=True,
        ).stdout
        for before in ([], EXEC)
    ]  # fmt: skip
    assert json.loads(seen[0]) == json.loads(seen[1])


def test_no_signal_is_ignored_that_would_not_be_without_us(instance: Path) -> None:
    look = ["grep", "-E", "^(Sig[^Q]|Shd)", "/proc/self/status"]
    seen = [
        subprocess.run([*before, *look], capture_output=True, text=True, check=True).stdout
        for before in ([], EXEC)
    ]
    assert seen[0] == seen[1] != ""


def test_the_broker_that_exec_starts_is_not_under_its_filter_nor_in_its_namespace(
    instance: Path,
) -> None:
    subprocess.run([*EXEC, "true"], check=True)
    for pid in Path(f"{instance}.lock").read_text().split()[1::2]:
        # The one of its own sandbox.
        assert "Seccomp_filters:\t1\n" in Path(f"/proc/{pid}/status").read_text()
        assert os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt")


def test_a_relative_socket_s_path_means_the_same_to_the_supervisor(
    launch: Launch, instance: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    perfkeep.recordings()  # a broker with the whole path in its environment, as others expect
    monkeypatch.chdir(instance.parent)
    monkeypatch.setenv("PERFKEEP_SOCKET", instance.name)
    launch().unclaimed()
    monkeypatch.setenv("PERFKEEP_SOCKET", str(instance))
    assert len(perfkeep.recordings()) == 1


def test_a_supervisor_that_cannot_start_is_an_error_and_nothing_is_run(instance: Path) -> None:
    perfkeep.recordings()
    log = Path(f"{instance}.log")
    log.unlink()
    log.mkdir()
    done = subprocess.run([*EXEC, "echo", "run"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the supervisor cannot start" in done.stderr and done.stderr.count("\n") == 1
    log.rmdir()


_INSIDE = """
import os, select, signal, sys
import perfkeep
from perfkeep.abi.perf_event import PERF_TYPE_PERSISTENT, Attr
from perfkeep.client import connection
from perfkeep.kernel.syscalls import perf_event_open

lock = sys.argv[1] + ".lock"
if sys.argv[2] == "broker started inside":
    connection.disconnect()
    pids = [int(word) for word in open(lock).read().split()[1::2]]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        # While one is torn down its socket still takes connections.
        while os.path.exists(f"/proc/{pid}"):
            select.select([], [], [], 0.001)
recording = perfkeep.start("inside", ["cpu-clock"], cpus=[0], ring="64K")
id = recording.info.events[0].id
with perf_event_open(Attr(type=PERF_TYPE_PERSISTENT, config=id), -1, 0):
    recording.disable()
    print(recording.info.state)
recording.claim()
"""


@pytest.mark.parametrize("broker", ["broker started outside", "broker started inside"])
def test_perfkeep_itself_works_under_exec(instance: Path, broker: str) -> None:
    """Even a broker that was started there: what it does to events is its own business."""
    done = subprocess.run(
        [*EXEC, sys.executable, "-c", _INSIDE, str(instance), broker],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "disabled\n", "")


def test_the_instance_stays_while_a_program_may_need_it(
    launch: Launch, instance: Path, eventually: Eventually
) -> None:
    """The broker ends only when it has no client, and the supervisor is one. Sockets of both ends
    have the name that the broker first bound to."""
    launch()

    def sockets() -> int:
        lines = Path("/proc/net/unix").read_text().splitlines()
        return sum(line.endswith(f"{instance}.new") for line in lines)

    eventually(lambda: sockets() == 2)
