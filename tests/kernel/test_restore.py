"""Broker and keeper die at the same moment: what comes back, and what is said of the time between."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import perfkeep
from perfkeep.cli.common import utc
from perfkeep.client.connection import disconnect
from perfkeep.errors import BrokerError
from perfkeep.kernel.syscalls import mount, umount
from perfkeep.testing.load import heartbeat
from perfkeep.testing.requirements import perf_events, requires, root, tracefs
from support.caller import Callers
from support.commands import Cli
from support.instance import Running, kill_both, status
from support.nobody import NOBODY
from support.waiting import Eventually

pytestmark = requires(perf_events)


@requires(tracefs)
def test_definitions_come_back_with_names_ids_owner_and_mode_and_a_gap(
    reachable: Running, tracefs_mounted: Path
) -> None:
    running = reachable
    perfkeep.start("a", ["cpu-clock/freq=99/", ("sched:sched_switch", "prev_pid > 0")], ring="64K")
    perfkeep.start("b", ["{page-faults,context-switches}"], cpus=[0], ring="64K", mode=0o640)
    perfkeep.Recording("b").disable()
    before = {one.name: one.info for one in perfkeep.recordings()}
    kill_both(running)
    after = {one.name: one.info for one in perfkeep.recordings()}
    assert list(after) == ["a", "b"]
    for name, info in after.items():
        old = before[name]
        for field in (
            "id",
            "state",
            "created_ns",
            "owner",
            "mode",
            "gid",
            "ring",
            "target",
            "events",
        ):
            assert getattr(info, field) == getattr(old, field), field
        (gap,) = info.gaps
        assert old.created_ns <= gap.since_ns
        assert gap.until_ns is not None and gap.until_ns > gap.since_ns
        assert "died at the same moment" in gap.why
        assert not info.problem
    with heartbeat(), perfkeep.Recording("a").snapshot() as snapshot:
        assert snapshot.gaps and not snapshot.complete
    fresh = perfkeep.start("c", ["cpu-clock"], cpus=[0], ring="64K")
    assert fresh.info.id > max(event.id for info in before.values() for event in info.events)


def test_what_comes_back_records_again(running: Running, caller: Callers) -> None:
    one = caller(0)
    recording = perfkeep.start("flight", ["syscalls:sys_enter_getpriority"], ring="256K")
    one.ask("call", 50)
    kill_both(running)
    perfkeep.recordings()
    one.ask("call", 50)
    with recording.snapshot() as snapshot:
        assert one.numbers_in(snapshot) == list(range(51, 101))


def test_stat_reports_since_when_it_counts(running: Running, cli: Cli) -> None:
    perfkeep.start("flight", ["page-faults"], ring="64K")
    assert cli("stat", "flight").err == ""
    kill_both(running)
    (gap,) = perfkeep.Recording("flight").info.gaps
    assert gap.until_ns is not None
    notice = f"perfkeep: the counts begin at {utc(gap.until_ns)}: {gap.why}\n"
    assert cli("stat", "flight").err == notice


@requires(root)
def test_what_belongs_to_a_user_comes_back_with_that_users_rights(reachable: Running) -> None:
    """root may count the whole machine; nobody may not, and so gets nothing back but the reason."""
    running = reachable
    with open("/proc/sys/kernel/perf_event_paranoid") as file:
        if int(file.read()) < 1:
            pytest.skip("kernel.perf_event_paranoid lets everyone record everything here")
    perfkeep.start("theirs", ["cpu-clock"], cpus=[0], ring="64K", owner=NOBODY)
    perfkeep.start("mine", ["cpu-clock"], cpus=[0], ring="64K")
    kill_both(running)
    theirs, mine = (one.info for one in perfkeep.recordings())
    assert theirs.state == "ended" and "not permitted" in theirs.problem
    assert mine.state == "running" and not mine.problem
    broker, _ = running.pids()
    os.kill(broker, signal.SIGKILL)
    disconnect()
    assert perfkeep.Recording("theirs").info.problem  # the next broker still knows it
    perfkeep.Recording("theirs").claim()
    assert [one.name for one in perfkeep.recordings()] == ["mine"]


def test_a_process_that_has_ended_is_not_recorded_again(running: Running) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        perfkeep.start("flight", ["page-faults"], pid=child.pid, ring="64K", cpus=[0])
        child.communicate()
    kill_both(running)
    info = perfkeep.Recording("flight").info
    assert info.state == "ended" and "has ended" in info.problem


def test_what_was_claimed_does_not_come_back(running: Running) -> None:
    perfkeep.start("a", ["cpu-clock"], cpus=[0], ring="64K")
    perfkeep.start("b", ["cpu-clock"], cpus=[0], ring="64K").claim()
    kill_both(running)
    assert [one.name for one in perfkeep.recordings()] == ["a"]


def test_an_orderly_end_leaves_nothing_to_come_back(
    running: Running, eventually: Eventually
) -> None:
    perfkeep.start("a", ["cpu-clock"], cpus=[0], ring="64K")
    broker, keeper = running.pids()
    disconnect()
    os.kill(broker, signal.SIGTERM)
    eventually(
        lambda: not os.path.exists(f"/proc/{broker}") and not os.path.exists(f"/proc/{keeper}")
    )
    assert not perfkeep.recordings()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: text.replace('"flight"', '"flighx"'), "checksum"),
        (lambda text: text.replace('"format":1', '"format":99'), "a newer perfkeep wrote it"),
        (lambda text: text.replace('"format":1', '"format":0'), "an older perfkeep wrote it"),
        (lambda _: "", "damaged"),
    ],
)
def test_a_definition_that_is_damaged_or_of_another_version_is_never_loaded_and_stays(
    running: Running, damage: Callable[[str], str], words: str
) -> None:
    perfkeep.start("flight", ["cpu-clock"], cpus=[0], ring="64K")
    perfkeep.start("other", ["cpu-clock"], cpus=[0], ring="64K")
    path = Path(status().state) / "recordings" / "flight.json"
    path.write_text(damage(path.read_text()))
    damaged = path.read_text()
    kill_both(running)
    assert [one.name for one in perfkeep.recordings()] == ["other"]
    (problem,) = status().problems
    assert words in problem and str(path) in problem
    assert path.read_text() == damaged


def test_a_definition_of_another_boot_is_history(running: Running) -> None:
    import zlib

    perfkeep.start("flight", ["cpu-clock"], cpus=[0], ring="64K")
    path = Path(status().state) / "recordings" / "flight.json"
    whole = json.loads(path.read_text())
    whole["definition"]["boot_id"] = "another"
    text = json.dumps(whole["definition"], separators=(",", ":"))
    path.write_text(f'{{"format":1,"crc32":{zlib.crc32(text.encode())},"definition":{text}}}')
    kill_both(running)
    assert not perfkeep.recordings()
    assert not status().problems
    assert not path.exists()


def state_of(recording: perfkeep.Recording) -> str:
    return recording.info.state


@pytest.fixture
def small_state(instance: Path) -> Iterator[Path]:
    """The state directory on a disk of 16 KiB."""
    folder = Path(f"{instance}.state")
    folder.mkdir()
    mount("tmpfs", str(folder), "tmpfs", options="size=16k")
    yield folder
    umount(str(folder))


@requires(root)
def test_a_full_state_directory_refuses_the_new_and_leaves_the_running_alone(
    small_state: Path, running: Running
) -> None:
    recording = perfkeep.start("flight", ["cpu-clock"], cpus=[0], ring="64K")
    (small_state / "ballast").write_bytes(b"x" * 4096)
    with pytest.raises(BrokerError, match=r"cannot be written.*No space") as caught:
        for number in range(10):
            perfkeep.start(f"more{number}", ["cpu-clock"], cpus=[0], ring="64K")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(BrokerError) as caught:
        recording.disable()
    assert caught.value.errno == errno.ENOSPC
    assert state_of(recording) == "running"
    (small_state / "ballast").unlink()
    recording.disable()
    assert state_of(recording) == "disabled"
    for one in perfkeep.recordings():
        one.claim()


@requires(root)
def test_in_a_read_only_state_directory_nothing_starts_and_what_runs_can_be_ended(
    small_state: Path, running: Running
) -> None:
    recording = perfkeep.start("flight", ["cpu-clock"], cpus=[0], ring="64K")
    mount(
        "tmpfs", str(small_state), "tmpfs", options="size=16k", flags=1 | 32
    )  # MS_RDONLY | MS_REMOUNT
    with pytest.raises(BrokerError) as caught:
        perfkeep.start("more", ["cpu-clock"], cpus=[0], ring="64K")
    assert caught.value.errno == errno.EROFS
    assert recording.info.state == "running"
    recording.claim()
    assert not perfkeep.recordings()
    (problem,) = status().problems
    assert "comes back though it was ended" in problem
