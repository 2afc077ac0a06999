"""What ends by itself, what is ended by policy, and what everything takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import perfkeep
from perfkeep.cli.main import main
from perfkeep.client.connection import disconnect
from perfkeep.testing.requirements import perf_events, requires, root
from support.instance import Running, names, status
from support.waiting import Eventually

pytestmark = requires(perf_events)


def start(name: str, **options: Any) -> perfkeep.Recording:
    return perfkeep.start(name, ["cpu-clock"], cpus=[0], ring="64K", **options)


def test_a_recording_ends_when_its_time_is_over_and_others_go_on(
    running: Running, eventually: Eventually
) -> None:
    start("long", ttl="1h")
    start("endless")
    start("short", ttl=0.3)
    eventually(lambda: names() == ["long", "endless"])
    assert "did=expire name=short" in Path(f"{running.socket}.audit").read_text()


def test_time_goes_on_when_the_broker_or_both_daemons_die(
    running: Running, eventually: Eventually
) -> None:
    expires = start("long", ttl="1h").info.expires_ns
    start("endless")
    start("short", ttl=1)
    os.kill(running.pids()[0], signal.SIGKILL)
    disconnect()
    again = perfkeep.Recording("long").info.expires_ns
    # The broker puts the end onto the wall clock at each question, from two clocks that it reads one
    # after the other.
    assert expires is not None and again is not None and abs(expires - again) < 60 * 10**9
    eventually(lambda: names() == ["long", "endless"])


def test_the_time_to_live_can_be_changed_and_taken_away(
    running: Running, eventually: Eventually
) -> None:
    start("kept", ttl="1h").expire(None)
    start("other").expire(0.1)
    eventually(lambda: names() == ["kept"])
    assert perfkeep.Recording("kept").info.expires_ns is None


@requires(root)
def test_setting_the_clock_ends_nothing_and_keeps_nothing_alive(
    running: Running, eventually: Eventually
) -> None:
    """An hour ahead, and back at once: nothing here may hang on the time of day."""
    import time

    start("long", ttl="30m")
    begun, before = time.monotonic_ns(), time.time_ns()
    try:
        time.clock_settime_ns(time.CLOCK_REALTIME, before + 3600 * 10**9)
        seen = names()
        start("short", ttl=0.2)
    finally:
        time.clock_settime_ns(time.CLOCK_REALTIME, before + time.monotonic_ns() - begun)
    assert seen == ["long"]
    eventually(lambda: names() == ["long"])


def test_gc_ends_what_policy_calls_over_and_only_tells_when_it_is_told_to(
    reachable: Running,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "policy.toml").write_text("[gc]\nend_ended = true\nowner_gone = 'no-account'\n")
    monkeypatch.setenv("PERFKEEP_CONFIG", str(tmp_path))
    start("alive")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        perfkeep.start("of-a-process", ["page-faults"], pid=child.pid, ring="64K", cpus=[0])
        child.communicate()
    expected = ["of-a-process"]
    if os.geteuid() == 0:
        start("orphan", owner=2**31)
        expected.append("orphan")
    assert main(["gc", "--dry-run"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == expected
    assert len(names()) == 1 + len(expected)
    assert main(["gc"]) == 0
    assert names() == ["alive"]
    capsys.readouterr()
    assert main(["gc"]) == 0
    assert capsys.readouterr().out == "nothing is over\n"


def test_rm_all_ends_all_that_is_ones_own(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    start("a")
    start("b")
    assert main(["rm", "--all", "a"]) == 2
    assert main(["rm"]) == 2
    assert names() == ["a", "b"]
    assert main(["rm", "--all"]) == 0
    assert names() == []


def test_status_accounts_for_every_byte_by_user(running: Running) -> None:
    start("a")
    perfkeep.start("b", ["cpu-clock", "page-faults"], ring="128K")
    found = status()
    (mine,) = found.users
    assert (mine.uid, mine.recordings) == (os.geteuid(), 2)
    assert mine.events == found.events
    rings = sum(
        1 for one in perfkeep.recordings() for event in one.info.events[:1] for _ in event.cpus
    )
    assert mine.ring_bytes == found.ring_bytes == (64 << 10) + (rings - 1) * (128 << 10)
    files = list(Path(found.state).rglob("*.json"))
    assert found.state_bytes == sum(path.stat().st_size for path in files) > 0
    assert found.log_bytes > 0


def test_instances_do_not_disturb_each_other_and_ls_all_shows_those_that_may_be_seen(
    running: Running,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    eventually: Eventually,
) -> None:
    from perfkeep.client import instances

    one, two = str(running.socket), f"{running.socket}2"
    start("same")
    monkeypatch.setenv("PERFKEEP_SOCKET", two)
    start("same")
    start("other")
    monkeypatch.setattr(instances, "sockets", lambda: [one, two, "/nowhere/at/all"])
    capsys.readouterr()
    assert main(["ls", "--all"]) == 0
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [[one, "same"], [two, "same"], [two, "other"]]
    perfkeep.Recording("same").claim()
    monkeypatch.setenv("PERFKEEP_SOCKET", one)
    assert names() == ["same"]
