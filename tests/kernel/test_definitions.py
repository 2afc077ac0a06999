"""Recordings that files define, started for real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import perfkeep
from perfkeep.cli.main import main
from perfkeep.client import definitions
from perfkeep.kernel import tracefs as tracing
from perfkeep.testing.requirements import perf_events, requires, root, tracefs
from support.instance import Running, names

pytestmark = [
    requires(perf_events, tracefs, root),
    pytest.mark.usefixtures("running", "tracefs_mounted"),
]

Captured = pytest.CaptureFixture[str]

SWITCH = "sched:sched_switch"
ABSENT = "no_such_system:*"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """recordings.d, empty."""
    monkeypatch.setenv("PERFKEEP_CONFIG", str(tmp_path))
    (tmp_path / "recordings.d").mkdir()
    return tmp_path / "recordings.d"


def define(path: Path, name: str, events: list[str], more: str = "") -> None:
    path.write_text(f'[recording.{name}]\nevents = {events!r}\nring = "64K"\ncpus = "0"\n{more}\n')


def said(capsys: Captured) -> tuple[list[str], list[str]]:
    out, err = capsys.readouterr()
    return out.splitlines(), err.splitlines()


def recorded(name: str) -> list[str]:
    return [event.event for event in perfkeep.Recording(name).info.events]


def test_what_is_defined_is_started_and_not_started_twice(folder: Path, capsys: Captured) -> None:
    define(folder / "a.toml", "a", ["cpu-clock/freq=99/", SWITCH])
    define(folder / "b.toml", "b", ["page-faults"])
    assert main(["load"]) == 0
    assert said(capsys) == (["a has been started", "b has been started"], [])
    before = {info.name: info.id for info in perfkeep.client.recording.infos()}
    assert main(["load"]) == 0
    left = "is there already, and is left as it is"
    assert said(capsys) == ([f"a {left}", f"b {left}"], [])
    assert {info.name: info.id for info in perfkeep.client.recording.infos()} == before


def test_what_was_ended_since_is_started_again(folder: Path, capsys: Captured) -> None:
    define(folder / "a.toml", "a", ["page-faults"])
    define(folder / "b.toml", "b", ["page-faults"])
    assert main(["load"]) == 0
    perfkeep.Recording("a").claim()
    assert main(["load"]) == 0
    assert names() == ["b", "a"]


def test_a_bad_file_and_a_recording_that_is_refused_stop_no_other(
    folder: Path, capsys: Captured
) -> None:
    (folder / "a.toml").write_text("[recording.a]\nevent = 3\n")
    define(folder / "b.toml", "b", ["page-faults"], "\n[recording.c]\nevents = ['x:y']")
    (folder / "c.toml").write_text("no toml")
    define(folder / "d.toml", "d", ["page-faults", ABSENT])
    define(folder / "e.toml", "e", [SWITCH])
    assert main(["load"]) == 1
    out, err = said(capsys)
    assert out == ["b has been started", "e has been started"]
    assert names() == ["b", "e"]
    failed = [line for line in err if not line.startswith("hint: ")]
    assert [line.removeprefix(f"perfkeep: {folder}/").partition(": ")[0] for line in failed] == [
        "a.toml:1", "a.toml:2", "c.toml:1", "b.toml:6", "d.toml:1",
    ]  # fmt: skip


def test_a_recording_goes_without_optional_events_that_this_machine_lacks(
    folder: Path, capsys: Captured
) -> None:
    define(folder / "a.toml", "a", [ABSENT, SWITCH], "optional = true")
    define(folder / "b.toml", "b", [ABSENT], "optional = true")
    assert main(["load"]) == 0
    out, err = said(capsys)
    assert out == ["a has been started"]
    assert [line.partition(":")[2].split()[0] for line in err] == ["a", "b", "b"]
    assert recorded("a") == [SWITCH] and names() == ["a"]


def test_an_optional_event_that_the_cpus_lack_is_found_out_by_opening_it(
    folder: Path, capsys: Captured
) -> None:
    # No PMU has so high a number.
    define(folder / "a.toml", "a", ["4000000000:1", SWITCH], "optional = true")
    assert main(["check"]) == 0 and main(["load"]) == 0
    assert recorded("a") == [SWITCH]


@pytest.mark.usefixtures("reachable")
def test_everything_that_a_file_says_holds(folder: Path, tmp_path: Path) -> None:
    (folder / "a.toml").write_text(
        "[recording.a]\n"
        f'events = ["page-faults", {{event = "{SWITCH}", filter = "prev_pid == 1"}}]\n'
        'cpus = "0"\nring = "64K"\ncall_graph = true\nowner = 65534\ngroup = 65533\n'
        f'mode = "0640"\nttl = "1h"\nspill = "{tmp_path}/spill"\nspill_every = "2s"\n'
        "enable = false\n"
    )
    (definition,) = definitions.read(str(folder / "a.toml"), obeyed=True)
    assert definition.start().notes == ()
    info = perfkeep.Recording("a").info
    assert [event.cpus for event in info.events] == [[0], [0]]
    assert (info.owner.uid, info.gid, info.mode) == (65534, 65533, 0o640)
    assert info.ring.bytes_per_cpu == 65536 and info.state == "disabled"
    assert info.expires_ns is not None and info.spill is not None
    assert info.spill.directory == f"{tmp_path}/spill" and info.spill.every_ns == 2 * 10**9


def test_nothing_defined_starts_nothing(folder: Path, capsys: Captured, running: Running) -> None:
    assert main(["load"]) == 0
    assert said(capsys) == ([f"no recordings are defined in {folder}"], [])
    assert not running.socket.exists()


def test_check_finds_a_tracepoint_that_is_not_there_without_a_daemon(
    folder: Path, capsys: Captured, running: Any
) -> None:
    system = tracing.systems()[0]
    define(folder / "a.toml", "a", [SWITCH, f"{system}:no_such_event"])
    assert main(["check"]) == 2
    (line, *_), _ = said(capsys)
    assert line.startswith(f"{folder}/a.toml:2: unknown event '{system}:no_such_event'")
    assert not running.socket.exists()
