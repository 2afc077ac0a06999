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
    bubblewrap,
    cpu_hotplug,
    overlay,
    perf_events,
    requires,
    root,
    tracefs,
)
from perfkeep.wire.instance import current
from support.commands import Cli
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


def test_a_name_means_the_same_kind_whatever_joins_and_leaves(
    tree: Path, running: Running, eventually: Eventually
) -> None:
    recording = perfkeep.start("my-flight", ["cpu-clock/freq=99/"], ring="64K")
    first = {"my_flight": "id=0x1,lenient=1", "my_flight.cpu_clock": "id=0x1,lenient=1"}
    assert entries(tree) == first
    recording.add(["sched:sched_switch", "cpu-clock/freq=9/"])
    joined = {
        "my_flight.sched_sched_switch": "id=0x2,lenient=1",
        "my_flight.cpu_clock.3": "id=0x3,lenient=1",
    }
    assert entries(tree) == first | joined
    recording.remove([2])
    del joined["my_flight.sched_sched_switch"]
    assert entries(tree) == first | joined
    recording.remove([1])
    assert entries(tree) == joined
    before = running.pids()[0]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: running.pids()[0] != before)
    recording.add(["page-faults"])
    assert entries(tree) == joined | {"my_flight.page_faults": "id=0x4,lenient=1"}
    recording.claim()
    assert entries(tree) == {}


def test_recordings_whose_names_become_one_are_told_apart(tree: Path) -> None:
    perfkeep.start("a-b", ["cpu-clock"], ring="64K")
    perfkeep.start("a_b", ["cpu-clock"], ring="64K")
    assert entries(tree) == {
        "a_b": "id=0x1,lenient=1",
        "a_b.cpu_clock": "id=0x1,lenient=1",
        "a_b.2": "id=0x2,lenient=1",
        "a_b.cpu_clock.2": "id=0x2,lenient=1",
    }


@pytest.mark.parametrize(
    "name", ["sched_switch", "sched", "software", "persistent", "cycles", "r1a8"]
)
def test_a_word_that_perf_knows_is_no_name(tree: Path, name: str, cli: Cli) -> None:
    perfkeep.start(name, ["cpu-clock", "page-faults"], ring="64K")
    assert set(entries(tree)) == {f"{name}.cpu_clock", f"{name}.page_faults"}
    assert "\nperf " not in cli("show", name).out


def test_show_prints_the_arguments_for_perf(tree: Path, cli: Cli) -> None:
    perfkeep.start("flight", ["cpu-clock", "sched:sched_switch"], ring="64K")
    lines = cli("show", "flight").out.splitlines()
    assert "perf     -e persistent/flight/, the first of 2" in lines
    assert [line.split()[-1] for line in lines[-2:]] == [
        "persistent/flight.cpu_clock/", "persistent/flight.sched_sched_switch/",
    ]  # fmt: skip


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
    eventually(lambda: set(entries(tree)) == {"flight", "flight.cpu_clock"})


def test_a_tree_that_was_deleted_comes_back_and_disturbs_no_recording(tree: Path) -> None:
    import shutil

    perfkeep.start("first", ["cpu-clock"], ring="64K")
    shutil.rmtree(tree)
    perfkeep.start("second", ["cpu-clock"], ring="64K")
    assert {"first", "second"} < set(entries(tree))


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


#: Prints mode, owner, labels and target of all in the folder of PMUs, our own left out.
ATTRIBUTES = f"""
import os
for path in [{str(DEVICES)!r}, *sorted(os.scandir({str(DEVICES)!r}), key=lambda entry: entry.name)]:
    if os.path.basename(path) != "persistent":
        at = os.lstat(path)
        link = os.readlink(path) if os.path.islink(path) else ""
        print(os.fspath(path), oct(at.st_mode), at.st_uid, at.st_gid, os.listxattr(path), link)
"""


@requires(root, overlay)
@pytest.mark.parametrize("user", ["", "setpriv --reuid 65534 --regid 65534 --clear-groups "])
@pytest.mark.parametrize("umask", ["022", "077"])
def test_the_folder_of_the_pmus_stays_as_it_is(
    tree: Path, tmp_path: Path, user: str, umask: str
) -> None:
    program = tmp_path / "look.py"
    program.write_text(ATTRIBUTES)
    look = f"{user}/usr/bin/python3 -I - <{program}"
    said = perfkeep_in_private(
        f"umask {umask}", look, "echo --", "$pk mount >/dev/null", look, "echo --",
        "$pk umount >/dev/null", look, "echo --", f"$pk exec -- sh -c '{look}'",
    )  # fmt: skip
    before, during, after, inside = "\n".join(said).split("\n--\n")
    assert len(before.splitlines()) > 3
    assert during == after == inside == before


#: Mounts a sysfs in a user namespace of its own, as rootless containers do.
ROOTLESS = {
    "unshare": "unshare -Urnm sh -c 'mount -t sysfs none {0} && echo mounted'",
    "bwrap": "bwrap --unshare-all --dev-bind / / sh -c 'unshare -Urnm mount -t sysfs none {0} && echo mounted'",
}


@requires(root, overlay, bubblewrap)
@pytest.mark.parametrize("way", ROOTLESS)
def test_user_namespaces_can_still_mount_sysfs(tree: Path, tmp_path: Path, way: str) -> None:
    rootless = "setpriv --reuid 65534 --regid 65534 --clear-groups " + ROOTLESS[way]
    place = f"/tmp/perfkeep-sysfs-{os.getpid()}"
    command = rootless.format(place)
    said = perfkeep_in_private(
        f"mkdir {place}", f"trap 'rmdir {place}' EXIT", command, "$pk mount >/dev/null", command,
        "$pk umount >/dev/null", "grep -c uncovered /proc/mounts || true", f"$pk exec -- {command}",
    )  # fmt: skip
    assert said == ["mounted", "mounted", "0", "mounted"]


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
    assert entries(second / "persistent")["flight"] == "id=0x1,lenient=1"


@pytest.fixture(autouse=True)
def _view_of_the_machine_is_not_ours() -> Iterator[None]:
    """These tests need a /sys that shows no persistent events."""
    if sysfs.LITERAL.exists():
        pytest.skip(f"{sysfs.LITERAL} is mounted on this machine")
    yield
