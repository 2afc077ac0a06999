"""The copy of rings on disk, and what can be had of it when everything has died."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import perfkeep
from perfkeep.abi.perf_data import Feature
from perfkeep.analysis.mappings import KERNEL_PATH
from perfkeep.cli.main import main
from perfkeep.client.connection import disconnect
from perfkeep.client.recover import look, look_at_all, recover
from perfkeep.errors import BrokerError, DataError, PerfkeepError
from perfkeep.formats.perf_data.build_ids import build_ids
from perfkeep.formats.perf_data.reader import parse
from perfkeep.kernel import sysctl
from perfkeep.testing.requirements import perf_events, perf_tool, requires, root, tracefs
from support.caller import Caller, Callers
from support.instance import Running, kill_both
from support.waiting import Eventually

pytestmark = requires(perf_events, tracefs)


def spilled_after(recording: perfkeep.Recording, moment_ns: int) -> Callable[[], bool]:
    def check() -> bool:
        spill = recording.info.spill
        return spill is not None and spill.last_ns > moment_ns

    return check


@pytest.fixture
def one(caller: Callers) -> Caller:
    return caller(0)


@pytest.fixture
def spilling(
    running: Running, one: Caller, tracefs_mounted: Path, tmp_path: Path
) -> perfkeep.Recording:
    return perfkeep.start(
        "flight", [one.calls], ring="256K", spill=str(tmp_path / "spill"), spill_every=0.2
    )


def test_the_past_is_still_there_when_both_have_died(
    running: Running,
    spilling: perfkeep.Recording,
    one: Caller,
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    import time

    for _ in range(3):
        one.ask("call", 100)
        eventually(spilled_after(spilling, time.time_ns()))
    kill_both(running)
    with recover(look(str(tmp_path / "spill")), None) as snapshot:
        assert one.numbers_in(snapshot) == list(range(1, 301))
    # What comes back spills anew, and leaves the past alone.
    (gap,) = spilling.info.gaps
    assert f"perfkeep recover {tmp_path}/spill" in gap.why
    one.ask("call", 50)
    eventually(spilled_after(spilling, time.time_ns()))
    newest, older = look_at_all(str(tmp_path / "spill"))
    with recover(newest, None) as snapshot:
        assert one.numbers_in(snapshot) == list(range(301, 351))
    with recover(older, None) as snapshot:
        assert one.numbers_in(snapshot) == list(range(1, 301))


def test_a_broker_that_dies_spills_on_where_it_was(
    running: Running,
    spilling: perfkeep.Recording,
    one: Caller,
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    import time

    for victim in (0, 1, 0):
        one.ask("call", 100)
        os.kill(running.pids()[victim], signal.SIGKILL)
        disconnect()
        eventually(spilled_after(spilling, time.time_ns()))
    kill_both(running)
    (newest,) = look_at_all(str(tmp_path / "spill"))
    with recover(newest, None) as snapshot:
        assert one.numbers_in(snapshot) == list(range(1, 301))


def test_what_is_recovered_of_another_boot_has_nothing_of_this_one(
    running: Running,
    spilling: perfkeep.Recording,
    caller: Callers,
    eventually: Eventually,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import time

    caller(0).ask("call", 20)
    eventually(spilled_after(spilling, time.time_ns()))
    kill_both(running)
    (newest,) = look_at_all(str(tmp_path / "spill"))
    spilled_in = sysctl.boot_id()
    monkeypatch.setattr(sysctl, "boot_id", lambda: "another")
    with recover(newest, None) as snapshot, snapshot.open() as opened:
        file = parse(memoryview(opened.read()))
    assert file.text(Feature.BOOT_ID) == spilled_in
    assert not file.text(Feature.OSRELEASE)
    assert KERNEL_PATH not in build_ids(file.features.get(Feature.BUILD_ID, memoryview(b"")))
    assert not [record for _, record in file.records() if b"[kernel.kallsyms]" in bytes(record)]


@requires(perf_tool)
def test_the_command_writes_what_perf_reads(
    running: Running,
    spilling: perfkeep.Recording,
    one: Caller,
    eventually: Eventually,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import time

    one.ask("call", 20)
    eventually(spilled_after(spilling, time.time_ns()))
    kill_both(running)
    out = tmp_path / "out.data"
    assert main(["recover", str(tmp_path / "spill"), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "flight as it was at" in said and "written to" in said
    script = subprocess.run(
        ["perf", "script", "--pid", str(one.pid), "-i", str(out)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert script.stdout.count("sys_enter_getpriority") == 20
    assert main(["recover", "--list", str(tmp_path / "spill")]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["newest", "flight"]


def test_what_cannot_be_read_is_said_and_the_rest_recovered(
    running: Running,
    spilling: perfkeep.Recording,
    one: Caller,
    eventually: Eventually,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import time

    one.ask("call", 20)
    eventually(spilled_after(spilling, time.time_ns()))
    spilling.claim()
    ring = tmp_path / "spill" / "ring.1"
    ring.write_bytes(ring.read_bytes()[:100])
    out = str(tmp_path / "out.data")
    assert main(["recover", str(tmp_path / "spill"), "-o", out]) == 3
    assert "ring.1: nothing was ever written to it wholly" in capsys.readouterr().err
    (tmp_path / "spill" / "meta").write_bytes(b"no")
    with pytest.raises(DataError, match="no description"):
        look(str(tmp_path / "spill"))
    with pytest.raises(DataError, match="holds no crash copy") as caught:
        look(str(tmp_path))
    assert caught.value.errno == errno.ENOENT


def test_a_directory_that_others_can_change_is_not_spilled_to(
    running: Running, tmp_path: Path
) -> None:
    (tmp_path / "spill").mkdir()
    (tmp_path / "spill").chmod(0o777)
    with pytest.raises(PerfkeepError, match="others can change") as caught:
        perfkeep.start("flight", ["cpu-clock"], ring="64K", spill=str(tmp_path / "spill"))
    assert caught.value.errno == errno.EPERM
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(PerfkeepError):
        perfkeep.start("flight", ["cpu-clock"], ring="64K", spill=str(tmp_path / "link"))
    assert not perfkeep.recordings()


def test_a_start_that_is_refused_leaves_no_files(running: Running, tmp_path: Path) -> None:
    perfkeep.start("flight", ["cpu-clock"], ring="64K", cpus=[0])
    with pytest.raises(BrokerError):
        perfkeep.start("flight", ["cpu-clock"], ring="64K", spill=str(tmp_path / "spill"))
    assert not list((tmp_path / "spill").iterdir())


@requires(root)
def test_a_disk_that_is_too_small_is_found_at_the_start(running: Running, tmp_path: Path) -> None:
    from perfkeep.kernel.syscalls import mount, umount

    small = tmp_path / "small"
    small.mkdir(mode=0o700)
    mount("tmpfs", str(small), "tmpfs", options="size=300k,mode=700")
    try:
        with pytest.raises(PerfkeepError, match=r"cannot be spilled.*No space") as caught:
            perfkeep.start("flight", ["cpu-clock"], ring="256K", spill=str(small))
        assert caught.value.errno == errno.ENOSPC
        assert not list(small.iterdir())
    finally:
        umount(str(small))
    assert not perfkeep.recordings()
