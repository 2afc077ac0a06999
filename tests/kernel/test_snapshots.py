"""Snapshots pause nothing and miss nothing.

The load numbers its system calls, and each sample carries its number: what is missing is seen.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

import perfkeep
from perfkeep import events
from perfkeep.abi.perf_event import DATA_HEAD_OFFSET, Flag
from perfkeep.client import snapshot as taking
from perfkeep.client.connection import Connection
from perfkeep.client.event import PerfEvent
from perfkeep.client.opening import kind_of
from perfkeep.errors import BrokerError, PerfkeepError
from perfkeep.kernel import cpus
from perfkeep.kernel.syscalls import mount, perf_event_open, umount
from perfkeep.testing.requirements import perf_events, requires, root, tracefs
from perfkeep.wire import messages
from perfkeep.wire.instance import current
from support.caller import CALLS, Callers
from support.instance import status
from support.waiting import Eventually

pytestmark = [
    requires(perf_events, tracefs, root),
    pytest.mark.usefixtures("running", "tracefs_mounted"),
]

LAST = max(cpus.online())


def assert_whole(numbers: Sequence[int]) -> None:
    """Not one is missing between the first and the last."""
    assert numbers
    missing = set(range(numbers[0], numbers[-1] + 1)).difference(numbers)
    assert not missing, f"{len(missing)} of {len(numbers)} are missing: {sorted(missing)[:10]}"


def written(recording: perfkeep.Recording, cpu: int) -> int:
    """Bytes that were ever written to a CPU's ring."""
    info = recording.info
    with (
        perfkeep.reopen(info.events[0].id, cpu) as event,
        event.mmap(info.ring.bytes_per_cpu) as ring,
    ):
        head = int.from_bytes(ring[DATA_HEAD_OFFSET : DATA_HEAD_OFFSET + 8], "little")
    return -head % (1 << 64) if info.ring.kind == "backward" else head


def test_consecutive_snapshots_overlap_and_nothing_is_missing_in_all(caller: Callers) -> None:
    one = caller(0)
    recording = perfkeep.start("flight", [one.calls], ring="1M")
    everything: set[int] = set()
    before: list[int] = []
    # The ring holds several seconds of that, however long a snapshot takes.
    with one.calling(every_us=1000):
        for _ in range(10):
            with recording.snapshot() as snapshot:
                numbers = one.numbers_in(snapshot)
            if numbers:
                assert_whole(numbers)
                assert not before or numbers[0] <= before[-1] <= numbers[-1]
            before = numbers
            everything |= set(numbers)
    last = one.ask("call", 0)
    with recording.snapshot() as snapshot:
        numbers = one.numbers_in(snapshot)
    assert numbers[-1] == last
    assert_whole(sorted(everything | set(numbers)))


@pytest.mark.parametrize("ring", ["64K", "256K"])
def test_a_ring_that_is_overwritten_at_full_speed_gives_whole_snapshots(
    caller: Callers, ring: str, eventually: Eventually
) -> None:
    one = caller(0)
    recording = perfkeep.start("flight", [one.calls], ring=ring)
    size = recording.info.ring.bytes_per_cpu
    with one.calling():
        eventually(lambda: written(recording, 0) > 2 * size)
        for _ in range(10):
            with recording.snapshot() as snapshot:
                assert_whole(one.numbers_in(snapshot))
                (covered, *_) = snapshot.coverage.cpus
                assert covered.lost == 0
                assert covered.bytes < size


def test_what_was_recorded_last_is_in_the_snapshot(caller: Callers) -> None:
    one = caller(0)
    recording = perfkeep.start("flight", [one.calls], cpus=[0], ring="64K")
    for _ in range(20):
        last = one.ask("call", 97)
        with recording.snapshot() as snapshot:
            assert one.numbers_in(snapshot)[-1] == last


def test_a_ring_that_has_not_wrapped_is_there_from_the_first_sample_on(caller: Callers) -> None:
    one = caller(LAST)
    recording = perfkeep.start("flight", [one.calls], ring="1M")
    one.ask("call", 1000)
    with recording.snapshot() as snapshot:
        assert one.numbers_in(snapshot) == list(range(1, 1001))
        assert snapshot.coverage.complete
        assert [cpu.cpu for cpu in snapshot.coverage.cpus] == list(cpus.online())


def test_an_empty_ring_gives_an_empty_snapshot(caller: Callers) -> None:
    recording = perfkeep.start("flight", [CALLS], ring="64K", enable=False)
    with recording.snapshot() as snapshot:
        assert sum(cpu.records for cpu in snapshot.coverage.cpus) == 0
        assert caller().numbers_in(snapshot) == []


def test_many_snapshots_at_the_same_time_are_each_whole(
    caller: Callers, eventually: Eventually
) -> None:
    one = caller(0)
    recording = perfkeep.start("flight", [one.calls], ring="512K")
    found: list[list[int]] = []

    def take() -> None:
        for _ in range(3):
            with recording.snapshot() as snapshot:
                found.append(one.numbers_in(snapshot))

    with one.calling():
        eventually(lambda: written(recording, 0) > 512 << 10)
        threads = [threading.Thread(target=take) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 18
    for numbers in found:
        assert_whole(numbers)


@pytest.mark.parametrize("after", [0, 1])
def test_a_recording_that_is_claimed_during_a_snapshot_is_still_whole_in_it(
    caller: Callers, after: int
) -> None:
    first, last = caller(0), caller(LAST)
    either = f"common_pid == {first.pid} || common_pid == {last.pid}"
    recording = perfkeep.start("flight", [(CALLS, either)], ring="256K")
    for one in (first, last):
        one.ask("call", 1500)

    def claim(done: int, rings: int) -> None:
        if done == min(after + 1, rings):
            with suppress(BrokerError):
                recording.claim()

    with taking.take("flight", None, progress=claim) as snapshot:
        for one in (first, last):
            assert one.numbers_in(snapshot) == list(range(1, 1501))
    assert perfkeep.recordings() == []


def test_the_rings_stay_though_the_recording_is_claimed_before_they_are_copied(
    caller: Callers,
) -> None:
    one = caller(0)
    recording = perfkeep.start("flight", [one.calls], cpus=[0], ring="64K")
    one.ask("call", 100)
    with Connection(current()) as client:
        begun, told = client.call("BeginSnapshot", messages.Named("flight"), messages.Snapshot)
        told[0].close()
        assert begun.cpus == [0]
        recording.claim()
        copied, fds = client.call("CopyRing", messages.CopyRing(0), messages.RingCopied)
        with fds[0] as fd:
            assert os.fstat(fd.fileno()).st_size == copied.bytes > 100 * 40
            with pytest.raises(OSError) as sealed:
                os.pwrite(fd.fileno(), b"x", 0)
            assert sealed.value.errno in (errno.EPERM, errno.EACCES)
        with pytest.raises(BrokerError) as caught:
            client.call("CopyRing", messages.CopyRing(1), messages.RingCopied)
        assert caught.value.errno == errno.EINVAL


def test_the_last_moments_alone_can_be_asked_for(caller: Callers) -> None:
    one = caller(0)
    recording = perfkeep.start("flight", [one.calls], cpus=[0], ring="1M")
    one.ask("call", 300)
    with recording.snapshot() as snapshot:
        until = snapshot.coverage.last_ns
        assert until is not None
    last = one.ask("call", 50)
    with recording.snapshot(since_ns=until + 1) as snapshot:
        assert one.numbers_in(snapshot) == list(range(301, last + 1))
        assert snapshot.coverage.complete
    with recording.snapshot(until_ns=until) as snapshot:
        assert one.numbers_in(snapshot) == list(range(1, 301))
    with recording.snapshot(last="1h") as snapshot:
        assert one.numbers_in(snapshot) == list(range(1, last + 1))
    with recording.snapshot(last="1ns") as snapshot:
        assert one.numbers_in(snapshot) == []


def test_a_span_that_the_ring_no_longer_holds_is_not_reached(
    caller: Callers, eventually: Eventually
) -> None:
    one = caller(0)
    recording = perfkeep.start("flight", [one.calls], cpus=[0], ring="64K")
    with one.calling():
        eventually(lambda: written(recording, 0) > 2 * (64 << 10))
    with recording.snapshot(last="1h") as snapshot:
        assert_whole(one.numbers_in(snapshot))
        assert not snapshot.coverage.complete
        assert [cpu.reached for cpu in snapshot.coverage.cpus] == [False]


@pytest.fixture
def forward() -> Iterator[PerfEvent]:
    """A tracepoint on CPU 0 that writes its ring forwards, as other programs open them."""
    (event,) = events.parse(CALLS)
    attr = events.for_flight_ring(event, call_chains=False).with_flags(off=Flag.WRITE_BACKWARD)
    with PerfEvent(perf_event_open(attr, -1, 0), kind_of(event, attr), 0) as opened:
        opened.enable()
        yield opened


@pytest.mark.parametrize("rings", [0, 1, 3])
def test_a_ring_that_grows_forwards_is_read_as_well(
    caller: Callers, forward: PerfEvent, eventually: Eventually, rings: int
) -> None:
    forward.unclaim("forward")
    recording = perfkeep.Recording("forward")
    assert recording.info.ring.kind == "forward"
    one = caller(0)
    last = one.ask("call", 100)
    if rings:
        with one.calling():
            eventually(lambda: written(recording, 0) > rings * (512 << 10))
        last = one.ask("call", 0)
    with recording.snapshot() as snapshot:
        numbers = one.numbers_in(snapshot)
    assert_whole(numbers)
    assert numbers[-1] == last
    assert (numbers[0] == 1) == (rings == 0)


def test_a_ring_that_grows_forwards_is_whole_while_it_is_overwritten(
    caller: Callers, forward: PerfEvent, eventually: Eventually
) -> None:
    forward.unclaim("forward")
    recording = perfkeep.Recording("forward")
    one = caller(0)
    with one.calling():
        eventually(lambda: written(recording, 0) > 2 * (512 << 10))
        for _ in range(10):
            with recording.snapshot() as snapshot:
                assert_whole(one.numbers_in(snapshot))


def test_the_broker_grows_no_larger_however_many_snapshots_are_taken() -> None:
    # What the broker knows of processes grows with the machine's, up to a limit.
    recording = perfkeep.start("flight", ["cpu-clock/freq=1000/"], ring="4M", sideband=False)
    broker = status().broker.pid

    def take(count: int) -> tuple[int, int]:
        for _ in range(count):
            recording.snapshot().close()
        return status().broker.rss_bytes, len(os.listdir(f"/proc/{broker}/fd"))

    rss, fds = take(5)
    later, fds_later = take(40)
    assert later - rss < 1 << 20
    assert fds_later <= fds


def test_copies_that_nobody_reads_do_not_pile_up(caller: Callers, eventually: Eventually) -> None:
    """A client that asks and never reads is owed a few copies, not one for each request."""
    one = caller(0)
    recording = perfkeep.start("flight", [one.calls], cpus=[0], ring="64K")
    one.ask("call", 2000)
    broker = status().broker.pid
    with Connection(current()) as client:
        _, told = client.call("BeginSnapshot", messages.Named("flight"), messages.Snapshot)
        told[0].close()
        # The broker stops reading as well, and then the socket takes no more.
        client.channel.sock.setblocking(False)
        with suppress(BlockingIOError):
            for _ in range(400):
                client.send("CopyRing", messages.CopyRing(0))
        with recording.snapshot() as snapshot:
            assert_whole(one.numbers_in(snapshot))
        assert copies_held(broker) < 12
    eventually(lambda: copies_held(broker) == 0)


def copies_held(pid: int) -> int:
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found += "memfd:perfkeep-ring" in os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def refusal(request: Callable[[], object]) -> tuple[int | None, str]:
    """What a request fails with; without the traceback, which would keep its fds open."""
    try:
        request()
    except PerfkeepError as error:
        return error.errno, str(error)
    raise AssertionError("it did not fail")


def test_a_full_disk_leaves_no_file_and_the_recording_as_it_was(
    caller: Callers, tmp_path: Path
) -> None:
    one = caller(0)
    recording = perfkeep.start("flight", [one.calls], ring="1M")
    one.ask("call", 8000)
    small = tmp_path / "small"
    small.mkdir()
    mount("tmpfs", str(small), "tmpfs", options="size=64k")
    try:
        number, said = refusal(lambda: recording.snapshot(str(small / "out")))
        assert number == errno.ENOSPC
        assert "disk is full" in said
        assert list(small.iterdir()) == []
    finally:
        umount(str(small))
    assert recording.info.state == "running"
    last = one.ask("call", 10)
    with recording.snapshot(str(tmp_path / "out")) as snapshot:
        assert one.numbers_in(snapshot) == list(range(1, last + 1))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out", "small"]


def test_a_snapshot_in_memory_can_be_saved_later_and_is_the_same(
    caller: Callers, tmp_path: Path
) -> None:
    one = caller(0)
    recording = perfkeep.start("flight", [one.calls], cpus=[0], ring="64K")
    one.ask("call", 10)
    with recording.snapshot() as snapshot:
        recording.claim()
        snapshot.save(str(tmp_path / "out"))
        with snapshot.open() as file:
            assert (tmp_path / "out").read_bytes() == file.read()
        with pytest.raises(PerfkeepError) as caught:
            snapshot.save(str(tmp_path / "out"), clobber=False)
    assert caught.value.errno == errno.EEXIST


def test_a_snapshot_of_what_is_not_there_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="no recording named 'nothing'") as caught:
        perfkeep.Recording("nothing").snapshot(str(tmp_path / "out"))
    assert caught.value.errno == errno.ENOENT
    assert list(tmp_path.iterdir()) == []


def test_an_event_that_was_removed_is_still_told_by_its_name(caller: Callers) -> None:
    one = caller(0)
    recording = perfkeep.start("flight", ["context-switches", CALLS], cpus=[0], ring="512K")
    one.ask("call", 10)
    recording.remove([CALLS])
    with recording.snapshot() as snapshot:
        assert one.numbers_in(snapshot) == list(range(1, 11))
