"""`adopt`: the events and rings of a running process are taken over, and outlive it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import perfkeep
from perfkeep.abi.records import Record
from perfkeep.cli.main import main
from perfkeep.client import taken
from perfkeep.client.adopt import adopt
from perfkeep.errors import BrokerError, PerfkeepError, UsageError
from perfkeep.formats.perf_data import reader
from perfkeep.kernel import cpus
from perfkeep.testing.requirements import perf_events, perf_tool, requires, root
from support.instance import Running
from support.nobody import AsNobody
from support.waiting import Eventually

pytestmark = [requires(perf_events, root), pytest.mark.usefixtures("running")]

# Perf events opened as a program would that has never heard of perfkeep: cpu-clock owns the ring
# of its CPU, which is mapped read-only (it overwrites), a dummy is redirected into it.
_PROGRAM = """
import fcntl, mmap, os, sys
from dataclasses import replace
from perfkeep import events
from perfkeep.abi.perf_event import Attr, Flag, Ioctl
from perfkeep.kernel.syscalls import perf_event_open

how, cpu, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
attrs = [events.for_flight_ring(events.parse(spec)[0], False)
    for spec in ("cpu-clock/freq=1000/", "dummy")]
if how == "forward":
    attrs = [one.with_flags(off=Flag.WRITE_BACKWARD) for one in attrs]
task = 0 if cpu < 0 else -1
first, second = [perf_event_open(one, task, cpu) for one in attrs]
if how != "bare":
    ring = mmap.mmap(first.fileno(), size + mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)
    if cpu >= 0:
        fcntl.ioctl(second.fileno(), Ioctl.SET_OUTPUT, first.fileno())
again = os.dup(first.fileno())
fcntl.ioctl(again, Ioctl.ENABLE, 0)
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def program(how: str = "backward", cpu: int = 0, size: int = 64 << 10) -> Iterator[int]:
    """A process that has perf events; gone behind the block."""
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, how, str(cpu), str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.kill()


def counts(pid: int) -> bool:
    """Whether the first of a process's events is enabled by now; it is a cpu-clock. One without rings
    is only there to find out what the kernel can do.
    """
    try:
        found = taken.take(pid)
    except PerfkeepError:
        return False  # it has none yet
    try:
        value = os.read(found.events[0].fd.fileno(), 1024)[:8]
        return bool(found.rings) and value != bytes(8)
    finally:
        found.close()


@contextmanager
def perf_record(file: Path, *options: str, eventually: Eventually) -> Iterator[int]:
    """A `perf record` that runs, and is ended by SIGKILL behind the block: on any other signal
    it disables its events first, for whoever has them."""
    with subprocess.Popen(
        ["perf", "record", *options, "-o", str(file)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            # It writes the head of the file before it enables anything.
            eventually(lambda: counts(process.pid))
            yield process.pid
        finally:
            process.kill()


def samples_of(path: Path) -> list[int]:
    """How many samples of each event a file has."""
    data = reader.read(str(path))
    ids = [set(event.all_ids) for event in data.events]
    counts = [0] * len(ids)
    for kind, record in data.records():
        if kind == Record.SAMPLE:
            first = int.from_bytes(record[8:16], sys.byteorder)
            counts[next(at for at, some in enumerate(ids) if first in some)] += 1
    return counts


def perf_script(path: Path) -> tuple[str, str]:
    done = subprocess.run(
        ["perf", "script", "-f", "-F", "comm,tid,cpu,time,event", "-i", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, done.stderr


def counted(recording: perfkeep.Recording) -> int:
    return sum(one.value for one in recording.stat().events[0].per_cpu)


# --- perf record --------------------------------------------------------------------------------


@requires(perf_tool)
def test_what_perf_record_records_goes_on_when_it_is_killed(
    tmp_path: Path, eventually: Eventually
) -> None:
    file, copy = tmp_path / "perf.data", tmp_path / "copy.data"
    with perf_record(file, "-a", "-e", "cpu-clock", eventually=eventually) as pid:
        recording = adopt(pid, "taken")
    (found,) = perfkeep.recordings()
    info = found.info
    assert (info.name, info.state) == ("taken", "running")
    assert info.ring.kind == "forward"
    assert not info.ring.overwrites
    assert info.events[0].event.startswith("cpu-clock")
    assert info.events[0].cpus == list(cpus.online())
    before = counted(recording)
    eventually(lambda: counted(recording) > before)
    recording.snapshot(str(copy)).close()
    script, complaint = perf_script(copy)
    assert complaint == ""
    assert "cpu-clock" in script
    assert samples_of(copy)[0] == len(script.splitlines())


@requires(perf_tool)
def test_what_perf_records_for_itself_beside_its_file_is_left_alone(
    tmp_path: Path, eventually: Eventually
) -> None:
    file = tmp_path / "perf.data"
    with perf_record(file, "-a", "-e", "cpu-clock", eventually=eventually) as pid:
        recording = adopt(pid, "taken", ["cpu-clock"])
        events = [one.event.partition("/")[0] for one in recording.info.events]
        assert events[0] == "cpu-clock"
        # perf adds a dummy for side-band records, depending on its version.
        assert set(events[1:]) <= {"dummy"}
        with pytest.raises(UsageError, match="it records cpu-clock"):
            adopt(pid, "other", ["page-faults"])


@requires(perf_tool)
def test_a_ring_that_does_not_overwrite_is_said_to_fill_up_and_counts_what_is_lost(
    tmp_path: Path, eventually: Eventually
) -> None:
    file = tmp_path / "perf.data"
    options = ("-a", "-m", "8", "-e", "cpu-clock")
    with perf_record(file, *options, eventually=eventually) as pid:
        recording = adopt(pid, "taken")
    assert any("does not overwrite" in note for note in recording.notes)
    clock = recording.info.events[0]

    def lost() -> int:
        (counts,) = [one for one in recording.stat().events if one.id == clock.id]
        return sum(one.lost for one in counts.per_cpu)

    eventually(lost)
    with recording.snapshot() as snapshot:
        assert snapshot.coverage.cpus[0].records


@requires(perf_tool)
def test_perf_record_into_a_pipe_does_not_tell_its_events_so_they_are_named(
    tmp_path: Path, eventually: Eventually
) -> None:
    copy = tmp_path / "copy.data"
    read_end, write_end = os.pipe()
    with subprocess.Popen(
        ["perf", "record", "-a", "-e", "cpu-clock", "-o", "-"],
        stdin=subprocess.DEVNULL,
        stdout=write_end,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(write_end)
        try:
            os.set_blocking(read_end, False)
            seen = bytearray()

            def some_samples() -> bool:
                try:
                    seen.extend(os.read(read_end, 1 << 16))
                except BlockingIOError:
                    return False
                return len(seen) > 400 << 10

            eventually(some_samples)
            with pytest.raises(UsageError, match="kinds of event in its ring on CPU 0"):
                adopt(process.pid, "taken", ["cpu-clock"] * 5)
            recording = adopt(process.pid, "taken", ["cpu-clock", "dummy"])
        finally:
            process.kill()
            os.close(read_end)
    recording.snapshot(str(copy)).close()
    script, complaint = perf_script(copy)
    assert complaint == ""
    assert script.count("cpu-clock") == samples_of(copy)[0] > 0


# --- any other program --------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["backward", "forward"])
def test_an_overwriting_ring_goes_on_recording_when_its_program_is_gone(
    how: str, tmp_path: Path, eventually: Eventually
) -> None:
    def newest() -> int:
        with recording.snapshot() as snapshot:
            return snapshot.coverage.last_ns or 0

    with program(how) as pid:
        recording = adopt(pid, "taken", ["cpu-clock/freq=1000/", "dummy"])
        ring = recording.info.ring
        assert (ring.kind, ring.bytes_per_cpu, ring.overwrites) == (how, 64 << 10, True)
        assert not any("clock" in note or "overwrite" in note for note in recording.notes)
    assert recording.info.state == "running"
    before = newest()
    eventually(lambda: newest() > before)
    recording.snapshot(str(tmp_path / "copy.data")).close()
    clock, dummy, sideband = samples_of(tmp_path / "copy.data")
    assert clock > 0
    assert (dummy, sideband) == (0, 0)


def test_what_was_adopted_is_mapped_and_reopened_by_its_id() -> None:
    with program(size=32 << 10) as pid:
        recording = adopt(pid, "taken", ["cpu-clock", "dummy"])
    for one in recording.info.events:
        with perfkeep.reopen(one.id, 0) as event, event.mmap(32 << 10) as mapping:
            assert len(mapping) > 32 << 10
    recording.claim()
    assert perfkeep.recordings() == []


@pytest.mark.parametrize("which", [0, 1], ids=["broker", "keeper"])
def test_it_survives_the_death_of_a_daemon(
    which: int, running: Running, eventually: Eventually
) -> None:
    with program() as pid:
        recording = adopt(pid, "taken", ["cpu-clock", "dummy"])
    before = counted(recording)
    pids = running.pids()
    os.kill(pids[which], signal.SIGKILL)
    eventually(lambda: running.pids()[which] != pids[which])
    eventually(lambda: counted(recording) > before)
    with recording.snapshot() as snapshot:
        assert snapshot.coverage.cpus[0].records > 0
    assert recording.info.state == "running"


def test_events_that_were_adopted_cannot_be_adopted_again_EEXIST() -> None:
    with program() as pid:
        adopt(pid, "taken", ["cpu-clock", "dummy"])
        for name, code in (("taken", errno.EEXIST), ("other", errno.EEXIST)):
            with pytest.raises(BrokerError) as caught:
                adopt(pid, name, ["cpu-clock", "dummy"])
            assert caught.value.errno == code
    assert [one.name for one in perfkeep.recordings()] == ["taken"]


# --- what cannot be -----------------------------------------------------------------------------


def refused(pid: int) -> tuple[int | None, str]:
    try:
        adopt(pid, "taken", ["cpu-clock", "dummy"])
    except PerfkeepError as error:
        return error.errno, str(error)
    return None, ""


def test_another_user_may_not_take_the_events_of_a_process_EPERM(as_nobody: AsNobody) -> None:
    with program() as pid:
        code, words = as_nobody(lambda: refused(pid))
    assert code == errno.EPERM
    assert "CAP_SYS_PTRACE" in words


def test_a_process_without_perf_events_ENOENT() -> None:
    assert refused(os.getpid()) == (
        errno.ENOENT,
        f"process {os.getpid()} has no perf events open",
    )


@pytest.mark.parametrize("pid", [0x7FFF_FFFF, 0, -1, 1 << 40])
def test_a_process_that_does_not_exist_ESRCH(pid: int) -> None:
    assert refused(pid) == (errno.ESRCH, f"there is no process {pid}")


def test_events_without_a_ring_are_not_adopted_EINVAL() -> None:
    with program("bare") as pid:
        code, words = refused(pid)
    assert code == errno.EINVAL
    assert "have no ring" in words


def test_an_event_that_follows_a_task_is_not_adopted_EINVAL() -> None:
    with program(cpu=-1) as pid:
        code, words = refused(pid)
    assert code == errno.EINVAL
    assert "follow a task" in words
    assert perfkeep.recordings() == []


# --- the command line ---------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    return main(words), *capsys.readouterr()


def test_the_verb_says_what_it_took_and_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    with program() as pid:
        code, out, said = run(
            capsys, "adopt", str(pid), "--name", "taken", "-e", "cpu-clock", "-e", "dummy"
        )
    assert code == 0
    assert said == ""
    assert out.splitlines()[0] == "taken (id 1) records cpu-clock, dummy"
    assert "perfkeep snapshot taken" in out and "perfkeep claim taken" in out


def test_without_a_name_it_is_called_by_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    with program() as pid:
        assert run(capsys, "adopt", str(pid), "-e", "cpu-clock", "-e", "dummy")[0] == 0
    assert [one.name for one in perfkeep.recordings()] == ["1"]


def test_the_verb_fails_with_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "adopt", str(0x7FFF_FFFF)) == (
        1,
        "",
        "perfkeep: there is no process 2147483647\n",
    )
    mine = str(os.getpid())
    assert run(capsys, "adopt", mine)[:2] == (1, "")
    with program() as pid:
        code, _, said = run(capsys, "adopt", str(pid), "-e", "cpu-clock")
    assert code == 2
    assert "2 kinds of event in its ring on CPU 0, and 1 were named" in said
    assert perfkeep.recordings() == []
