"""Errors say what failed, of which file or recording, and nothing that is not so."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import perfkeep
from perfkeep.kernel import cgroups
from perfkeep.kernel.syscalls import mount, umount
from perfkeep.testing.requirements import perf_events, requires, root
from support.commands import PERFKEEP, Cli
from support.instance import Running

pytestmark = requires(perf_events, root)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    path = Path(cgroups.roots()[0]) / f"perfkeep-test-{os.getpid()}"
    path.mkdir()
    yield path
    if path.exists():
        path.rmdir()


def test_a_plain_folder_is_no_cgroup(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("")
    got = cli("start", "x", "-e", "cpu-clock", "--cgroup", tmp_path)
    assert got.code == 1 and "is no cgroup that perf events can follow" in got.err
    hint = got.err.partition("hint: name one below ")[2].strip()
    assert hint in cgroups.roots()
    assert cli("start", "x", "-e", "cpu-clock/freq=1/", "--cgroup", hint, "--ring", "4K").code == 0


def test_a_recording_of_a_cgroup_ends_with_the_cgroup(cgroup: Path, running: Running) -> None:
    for name, path in (("path", str(cgroup)), ("name", f"/{cgroup.name}")):
        perfkeep.start(name, ["cpu-clock/freq=1/"], cgroup=path, ring="4K")
    states = [recording.info.state for recording in perfkeep.recordings()]
    assert states == ["running", "running"]
    cgroup.rmdir()
    states = [recording.info.state for recording in perfkeep.recordings()]
    assert states == ["ended", "ended"]


def test_a_directory_that_is_missing_is_not_called_empty(cli: Cli, tmp_path: Path) -> None:
    missing = tmp_path / "nope"
    got = cli("recover", missing)
    assert got.code == 1 and f"there is no directory {missing}" in got.err
    got = cli("recover", tmp_path)
    assert got.code == 1 and f"{tmp_path} holds no crash copy" in got.err


@pytest.mark.parametrize("verb", [["report"], ["script"], ["report", "--by", "sym"]])
def test_a_file_that_is_no_perf_data_is_named(cli: Cli, tmp_path: Path, verb: list[str]) -> None:
    path = tmp_path / "letter"
    path.write_text("dear kernel, " * 100)
    got = cli(*verb, path)
    assert got.code == 1 and f"{path}: this is no perf.data file" in got.err


def test_a_full_disk_is_no_matter_of_a_recording_when_a_file_is_exported(
    cli: Cli, running: Running, tmp_path: Path
) -> None:
    perfkeep.start("flight", ["cpu-clock/freq=1000/"], ring="64K", cpus=[0])
    source = tmp_path / "x.data"
    assert cli("snapshot", "flight", "-o", source).code == 0
    small = tmp_path / "small"
    small.mkdir()
    mount("tmpfs", str(small), "tmpfs", 0, "size=4k")
    try:
        words = ["export", str(source), "--to", "perf.data", "-o", str(small / "out")]
        got = subprocess.run([*PERFKEEP, *words], capture_output=True, text=True)
    finally:
        umount(str(small))
    assert got.returncode == 1 and "the disk is full" in got.stderr
    assert "recording" not in got.stderr


def test_nothing_is_upgraded_where_no_instance_runs(cli: Cli, instance: Path) -> None:
    got = cli("upgrade")
    assert (got.code, got.out) == (
        0,
        f"no instance runs; the next command starts perfkeep {perfkeep.__version__}\n",
    )
    assert not instance.exists()


@pytest.mark.parametrize("verb", [["report", "--by", "sym"], ["report", "--tree"]])
def test_a_recording_without_samples_yet_is_not_said_to_lack_addresses(
    cli: Cli, running: Running, verb: list[str]
) -> None:
    perfkeep.start("idle", ["cpu-clock/freq=100/"], pid=os.getpid(), ring="4K", enable=False)
    got = cli(*verb, "idle")
    assert got.code == 1 and "there are no samples yet" in got.err
