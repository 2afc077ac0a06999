"""The events in sysfs: they come and go with the recordings, and only ours are added."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import perfkeep
from perfkeep.client import sysfs
from perfkeep.errors import PerfkeepError
from perfkeep.kernel import cpus
from perfkeep.testing.requirements import (
    cpu_hotplug,
    overlay,
    perf_events,
    requires,
    root,
    tracefs,
)
from perfkeep.wire.instance import current
from support.instance import Running
from support.waiting import Eventually

pytestmark = requires(perf_events, tracefs)

DEVICES = Path("/sys/bus/event_source/devices")


@pytest.fixture
def tree(instance: Path) -> Path:
    return Path(current().devices) / "persistent"


def entries(tree: Path) -> dict[str, str]:
    return {path.name: path.read_text().strip() for path in (tree / "events").iterdir()}


def test_the_tree_describes_a_pmu(tree: Path) -> None:
    perfkeep.start("flight", ["cpu-clock"], ring="64K")
    assert (tree / "type").read_text() == f"{0x706B6570}\n"
    assert (tree / "format/id").read_text() == "config:0-63\n"
    assert (tree / "format/lenient").read_text() == "config1:0\n"
    assert (tree / "cpumask").read_text() == cpus.format_list(cpus.online()) + "\n"
    assert stat.S_IMODE((tree / "type").stat().st_mode) == 0o444


@requires(cpu_hotplug)
def test_the_cpumask_follows_the_cpus_that_are_online(tree: Path) -> None:
    perfkeep.start("first", ["cpu-clock"], cpus=[0], ring="64K")
    last = cpus.online()[-1]
    switch = Path(f"/sys/devices/system/cpu/cpu{last}/online")
    switch.write_text("0")
    try:
        perfkeep.start("second", ["cpu-clock"], cpus=[0], ring="64K")
        assert str(last) not in (tree / "cpumask").read_text()
    finally:
        switch.write_text("1")
    perfkeep.recordings()[0].claim()
    assert (tree / "cpumask").read_text() == cpus.format_list(cpus.online()) + "\n"


def test_an_entry_is_there_from_unclaim_to_claim(tree: Path) -> None:
    with perfkeep.open_event("cpu-clock", cpu=0) as event:
        id = event.unclaim()
        terms = f"id={id:#x},lenient=1"
        assert entries(tree) == {str(id): terms, f"_{id}": terms}
        event.claim()
        assert entries(tree) == {}


def test_one_kind_has_the_recording_s_name_and_several_have_one_each(tree: Path) -> None:
    recording = perfkeep.start("flight", ["cpu-clock/freq=99/"], ring="64K")
    assert entries(tree) == {"flight": "id=0x1,lenient=1"}
    recording.add(["sched:sched_switch"])
    assert entries(tree) == {
        "flight.cpu-clock": "id=0x1,lenient=1",
        "flight.sched_sched_switch": "id=0x2,lenient=1",
    }
    recording.remove(["sched:sched_switch"])
    assert list(entries(tree)) == ["flight"]
    recording.claim()
    assert entries(tree) == {}


def test_an_entry_has_owner_and_mode_of_its_recording(tree: Path) -> None:
    info = perfkeep.start("flight", ["cpu-clock"], ring="64K").info
    found = (tree / "events/flight").stat()
    assert (found.st_uid, found.st_gid) == (info.owner.uid, info.gid)
    assert stat.S_IMODE(found.st_mode) == info.mode == 0o600


def test_the_tree_is_right_again_after_the_broker_was_killed(
    tree: Path, running: Running, eventually: Eventually
) -> None:
    perfkeep.start("flight", ["cpu-clock"], ring="64K")
    (tree / "events/stale").write_text("id=0x99\n")
    before = running.pids()[0]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: running.pids()[0] != before)
    eventually(lambda: list(entries(tree)) == ["flight"])


def test_a_tree_that_was_deleted_comes_back_and_disturbs_no_recording(tree: Path) -> None:
    import shutil

    perfkeep.start("first", ["cpu-clock"], ring="64K")
    shutil.rmtree(tree)
    perfkeep.start("second", ["cpu-clock"], ring="64K")
    assert set(entries(tree)) == {"first", "second"}


def test_a_tree_that_cannot_be_written_disturbs_no_recording(tree: Path) -> None:
    perfkeep.start("first", ["cpu-clock"], ring="64K")
    import shutil

    shutil.rmtree(tree)
    tree.write_text("in the way")
    assert perfkeep.start("second", ["cpu-clock"], ring="64K").info.state == "running"
    assert "sysfs view is out of date" in Path(current().log).read_text()


def test_an_instance_that_ends_leaves_no_entry(
    tree: Path, running: Running, eventually: Eventually
) -> None:
    perfkeep.start("flight", ["cpu-clock"], ring="64K")
    os.kill(running.pids()[0], signal.SIGTERM)
    # Names alone: an entry may go between its listing and its reading.
    eventually(lambda: not list((tree / "events").iterdir()))


# --- in /sys ----------------------------------------------------------------------------------


def perfkeep_in_private(*commands: str) -> list[str]:
    """Run shell commands in a mount namespace that goes with them: the machine's /sys stays."""
    script = "set -e; mount --make-rprivate /; pk='" + f"{sys.executable} -m perfkeep'; "
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script + "; ".join(commands)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@requires(root, overlay)
def test_mount_adds_one_folder_to_the_real_pmus_and_umount_leaves_no_trace(tree: Path) -> None:
    perfkeep.start("flight", ["cpu-clock"], ring="64K")
    real = sorted(os.listdir(DEVICES))
    said = perfkeep_in_private(
        "$pk mount >/dev/null",
        f"ls {DEVICES}", "echo --", f"cat {DEVICES}/software/type",
        f"cat {DEVICES}/persistent/events/flight",
        f"touch {DEVICES}/persistent/x 2>/dev/null || echo read-only",
        "$pk claim flight >/dev/null", f"ls {DEVICES}/persistent/events",
        "$pk umount >/dev/null", "echo --", f"ls {DEVICES}", f"grep -c {DEVICES} /proc/mounts || true",
    )  # fmt: skip
    first, middle, last = (part.split("\n") for part in "\n".join(said).split("\n--\n"))
    assert first == sorted([*real, "persistent"])
    assert middle == ["1", "id=0x1,lenient=1", "read-only"]
    assert last == [*real, "0"]


@requires(root, overlay)
def test_mounting_twice_is_once(tree: Path) -> None:
    said = perfkeep_in_private("$pk mount", "$pk mount", f"grep -c {DEVICES} /proc/mounts")
    assert "showed already" in said[1] and said[2] == "2"


@requires(root, overlay)
def test_another_instance_s_view_is_not_covered_up(tree: Path, tmp_path: Path) -> None:
    other = f"PERFKEEP_SOCKET={tree.parent.parent}/other"
    said = perfkeep_in_private(
        "$pk mount >/dev/null", f"{other} $pk mount 2>&1 || true", f"grep -c {DEVICES} /proc/mounts"
    )
    assert "another instance" in said[0] and said[1:] == ["hint: perfkeep umount", "2"]


def test_umount_without_mount_says_so() -> None:
    if not sysfs.LITERAL.exists():
        assert sysfs.umount_from_literal_path() is False


def test_a_view_of_another_instance_is_an_error(
    instance: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sysfs, "LITERAL", tmp_path)
    with pytest.raises(PerfkeepError, match="another instance"):
        sysfs.is_mounted(current())


def test_the_second_sysfs_has_all_that_the_first_has(instance: Path) -> None:
    perfkeep.start("flight", ["cpu-clock"], ring="64K")
    for _ in range(2):  # made anew over itself
        root_path = Path(sysfs.second_sysfs(current()))
    assert set(os.listdir(root_path)) == set(os.listdir("/sys"))
    second = root_path / "bus/event_source/devices"
    assert set(os.listdir(second)) == {*os.listdir(DEVICES), "persistent"}
    assert (second / "software/type").read_text() == (DEVICES / "software/type").read_text()
    assert entries(second / "persistent") == {"flight": "id=0x1,lenient=1"}


@pytest.fixture(autouse=True)
def _view_of_the_machine_is_not_ours() -> Iterator[None]:
    """These tests need a /sys that shows no persistent events."""
    if sysfs.LITERAL.exists():
        pytest.skip(f"{sysfs.LITERAL} is mounted on this machine")
    yield
