"""The directory of a crash copy: one recording at a time, and a bounded number of earlier copies."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

import perfkeep
from perfkeep.client.spill import KEPT_ASIDE
from perfkeep.errors import PerfkeepError
from perfkeep.testing.requirements import perf_events, requires, root
from support.instance import Running
from support.waiting import Eventually

pytestmark = requires(perf_events, root)


def start(name: str, folder: Path) -> perfkeep.Recording:
    return perfkeep.start(name, ["cpu-clock/freq=10/"], cpus=[0], ring="64K", spill=str(folder))


def test_a_second_recording_does_not_overwrite_what_the_first_spills(
    running: Running, tmp_path: Path
) -> None:
    start("first", tmp_path)
    files = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    with pytest.raises(PerfkeepError) as caught:
        start("second", tmp_path)
    assert caught.value.errno == errno.EBUSY and str(tmp_path) in str(caught.value)
    assert {path.name: path.stat().st_ino for path in tmp_path.iterdir()} == files
    assert [one.name for one in perfkeep.recordings()] == ["first"]
    start("second", tmp_path / "of its own")


def test_when_a_recording_has_ended_its_directory_is_free_and_old_copies_are_bounded(
    running: Running, tmp_path: Path, eventually: Eventually
) -> None:
    def started(name: str) -> bool:
        try:
            start(name, tmp_path)
        except PerfkeepError as error:
            if error.errno != errno.EBUSY:
                raise
            return False  # the daemons close the files of what has ended a moment later
        return True

    for number in range(KEPT_ASIDE + 3):
        name = f"r{number}"
        eventually(lambda name=name: started(name))  # type: ignore[misc]
        perfkeep.Recording(name).claim()
    aside = {path.name for path in tmp_path.glob("before-*")}
    last = KEPT_ASIDE + 2
    assert aside == {f"before-{number}" for number in range(last - KEPT_ASIDE + 1, last + 1)}


def test_a_symbolic_link_is_refused_with_the_directory_that_works(
    running: Running, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(PerfkeepError, match="is a symbolic link") as caught:
        start("first", tmp_path / "link")
    assert caught.value.hint == f"name the directory itself: {tmp_path}/real"
    start("first", Path(caught.value.hint.rpartition(": ")[2])).claim()
