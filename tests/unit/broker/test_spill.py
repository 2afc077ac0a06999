"""perfkeep.broker.spill: whatever dies whenever, what is read back was in the ring, and is recent."""

from __future__ import annotations

import errno
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkeep.broker.rings import MappedRing
from perfkeep.broker.sideband import Sideband
from perfkeep.broker.spill import Job, RingFile, check
from perfkeep.broker.told_file import ToldFile
from perfkeep.errors import BrokerError, DataError
from perfkeep.kernel.fd import OwnedFd
from perfkeep.wire import spill
from perfkeep.wire.messages import KindInSnapshot, Owner, RecordingInfo, Ring, Target
from perfkeep.wire.spill import Meta

SIZE = 4096 * 4
LONGEST = 64
_MASK64 = (1 << 64) - 1


def content(position: int) -> int:
    """The byte that stands at this place of the stream: no two places nearby look alike."""
    return (position * 2654435761 >> 13) & 0xFF


class FakeRing:
    """A ring that goes on being written to, also while it is read."""

    cpu, bytes = 3, SIZE

    def __init__(self, backward: bool) -> None:
        self.backward = backward
        self.written = 0
        self.memory = bytearray(SIZE)
        #: Bytes that come while each piece is copied.
        self.during = 0

    def write(self, count: int) -> None:
        for _ in range(count):
            self.written += 1
            at = -self.written if self.backward else self.written - 1
            self.memory[at % SIZE] = content(at & _MASK64)

    def head(self) -> int:
        return (-self.written if self.backward else self.written) & _MASK64

    def data(self, start: int, end: int) -> memoryview:
        half = (start + end) // 2
        first = bytes(self.memory[start:half])
        self.write(self.during)
        return memoryview(first + bytes(self.memory[half:end]))


class Disk:
    """Takes the writes of a file, and gives it back as a crash would leave it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
        self.size = size
        self.writes: list[tuple[int, bytes] | None] = []
        self.now = bytearray(size)
        monkeypatch.setattr(os, "pwrite", self.pwrite)
        monkeypatch.setattr(os, "fdatasync", lambda _: self.writes.append(None))
        monkeypatch.setattr(os, "pread", lambda _, count, at: bytes(self.now[at : at + count]))

    def pwrite(self, _: int, data: bytes | memoryview, at: int) -> int:
        data = bytes(data)
        self.writes.append((at, data))
        self.now[at : at + len(data)] = data
        return len(data)

    def after_crash(self, at: int, lost: frozenset[int]) -> bytes:
        """The file when everything stopped before write number `at`: what was synced before is
        there; of what was written since, those that are in `lost` are not."""
        image = bytearray(self.size)
        synced = max((i for i in range(at) if self.writes[i] is None), default=-1)
        for number, write in enumerate(self.writes[:at]):
            if write is not None and (number < synced or number not in lost):
                image[write[0] : write[0] + len(write[1])] = write[1]
        return bytes(image)


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patched:
        yield patched


def read_back(image: bytes, backward: bool) -> tuple[int, int] | None:
    """(head, valid) of what recover would read, each byte of it compared with the stream."""
    try:
        slot, valid = spill.ring_state(image[: spill.PAGE])
    except DataError:
        return None
    base = spill.PAGE + slot.area * SIZE
    first = slot.head if backward else slot.head - valid
    data = b"".join(
        image[base + start : base + end]
        for start, end in spill.pieces(slot.head, valid, SIZE, backward)
    )
    assert data == bytes(content((first + i) & _MASK64) for i in range(valid))
    return slot.head, valid


@settings(max_examples=60)
@given(st.data(), st.booleans())
def test_whenever_it_all_stops_what_is_read_back_was_in_the_ring_and_is_the_newest(
    data: st.DataObject, backward: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, spill.ring_file_bytes(SIZE))
        ring = FakeRing(backward)
        file = RingFile(cast(MappedRing, ring), OwnedFd(os.open("/dev/null", os.O_RDWR)), LONGEST)
        ends = []  # of each step: writes so far, bytes written so far
        for _ in range(data.draw(st.integers(1, 4))):
            ring.write(data.draw(st.integers(0, SIZE * 3 // 2)))
            ring.during = data.draw(st.sampled_from([0, 0, 100, 3000, SIZE]))
            before = ring.written
            file.step()
            ends.append((len(disk.writes), before))
            if data.draw(st.booleans()):  # a new broker takes over
                fd = OwnedFd(os.open("/dev/null", os.O_RDWR))
                file = RingFile(cast(MappedRing, ring), fd, LONGEST)
        at = data.draw(st.integers(0, len(disk.writes)))
        lost = data.draw(st.frozensets(st.integers(0, len(disk.writes))))
        found = read_back(disk.after_crash(at, lost), backward)
    finished = [written for writes, written in ends if writes <= at]
    if not finished or not finished[-1]:
        return
    assert found is not None, "a spill was finished, and nothing can be read"
    head, _ = found
    seen = (-head if backward else head) & _MASK64
    assert seen >= finished[-1], "it is older than the last spill that was finished"


@pytest.mark.parametrize("backward", [True, False])
def test_only_what_is_new_is_written_and_a_quiet_ring_costs_nothing(
    patch: pytest.MonkeyPatch, backward: bool
) -> None:
    disk = Disk(patch, spill.ring_file_bytes(SIZE))
    ring = FakeRing(backward)
    file = RingFile(cast(MappedRing, ring), OwnedFd(os.open("/dev/null", os.O_RDWR)), LONGEST)
    ring.write(SIZE)
    assert file.step() == SIZE
    ring.write(500)
    assert file.step() == 500
    count = len(disk.writes)
    assert file.step() == 0 and len(disk.writes) == count
    assert read_back(bytes(disk.now), backward) == (ring.head(), SIZE)


def test_a_crash_in_the_middle_costs_no_more_than_what_was_being_written(
    patch: pytest.MonkeyPatch,
) -> None:
    disk = Disk(patch, spill.ring_file_bytes(SIZE))
    ring = FakeRing(True)
    file = RingFile(cast(MappedRing, ring), OwnedFd(os.open("/dev/null", os.O_RDWR)), LONGEST)
    ring.write(2 * SIZE)
    file.step()
    count = len(disk.writes)
    ring.write(1000)
    file.step()
    found = read_back(disk.after_crash(count + 3, frozenset()), True)
    assert found is not None and found[1] == SIZE - 1000
    # More than half a ring goes to the other area, and then nothing at all is lost.
    count = len(disk.writes)
    ring.write(SIZE - 1)
    file.step()
    found = read_back(disk.after_crash(count + 3, frozenset()), True)
    assert found is not None and found[1] == SIZE


class FakeSideband:
    """A log that grows and is begun anew now and then, and rings with something unread."""

    def __init__(self) -> None:
        self.number, self.log, self.unread = 1, b"", b""

    def since(self, log: int, at: int) -> tuple[int, bytes, bytes]:
        return self.number, self.log[at if log == self.number else 0 :], self.unread


def told_in(image: bytes) -> tuple[bytes, bytes] | None:
    """The log that recover would read, and what had not been read; None: it was never written."""
    slot = spill.told_slot(image[: spill.PAGE])
    if slot is None:
        return None
    base = spill.PAGE + slot.area * spill.told_area(len(image))
    unread = image[base + slot.logged :][: slot.unread]
    whole = zlib.crc32(unread) == slot.crc32
    return image[base : base + slot.logged], unread if whole else b""


_TOLD = st.binary(max_size=40)


@settings(max_examples=100)
@given(st.data())
def test_whenever_it_all_stops_what_is_read_back_is_what_a_sideband_had_told(
    data: st.DataObject,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        size = spill.told_file_bytes(1)
        disk = Disk(patch, size)
        sideband = FakeSideband()

        def taken_over() -> ToldFile:
            fd = OwnedFd(os.open("/dev/null", os.O_RDWR))
            return ToldFile(cast(Sideband, sideband), fd, size)

        file, steps = taken_over(), list[tuple[int, bytes, bytes]]()
        for _ in range(data.draw(st.integers(1, 6))):
            if data.draw(st.integers(0, 3)) == 0:
                sideband.number, sideband.log = sideband.number + 1, b""
            sideband.log += data.draw(_TOLD)
            sideband.unread = data.draw(_TOLD)
            if data.draw(st.booleans()):
                file = taken_over()
            file.step()
            steps.append((len(disk.writes), sideband.log, sideband.unread))
        at = data.draw(st.integers(0, len(disk.writes)))
        lost = data.draw(st.frozensets(st.integers(0, len(disk.writes))))
        found = told_in(disk.after_crash(at, lost))
    finished = sum(writes <= at for writes, _, _ in steps)
    if found is None:
        assert not finished
        return
    may = [(log, unread) for _, log, unread in steps[max(0, finished - 1) : finished + 1]]
    assert found in [*may, *((log, b"") for log, _ in may)]
    if at == steps[-1][0] and not lost:
        assert found == may[-1]


def test_what_has_been_told_is_written_once(patch: pytest.MonkeyPatch) -> None:
    disk = Disk(patch, spill.told_file_bytes(1))
    sideband = FakeSideband()
    fd = OwnedFd(os.open("/dev/null", os.O_RDWR))
    file = ToldFile(cast(Sideband, sideband), fd, spill.told_file_bytes(1))
    sideband.log = bytes(5000)
    assert file.step() == 5000
    sideband.log, sideband.unread = sideband.log + bytes(7), bytes(30)
    assert file.step() == 37
    count = len(disk.writes)
    assert file.step() == 0 and len(disk.writes) == count


def test_more_than_there_is_room_for_is_left_out(patch: pytest.MonkeyPatch) -> None:
    size = spill.told_file_bytes(1)
    disk = Disk(patch, size)
    sideband = FakeSideband()
    fd = OwnedFd(os.open("/dev/null", os.O_RDWR))
    sideband.log, sideband.unread = bytes(1000), b"x" * size
    assert ToldFile(cast(Sideband, sideband), fd, size).step() == spill.told_area(size)
    found = told_in(bytes(disk.now))
    assert found is not None and found[0] == bytes(1000) and len(bytes(disk.now)) == size


def info() -> RecordingInfo:
    return RecordingInfo(
        "flight",
        1,
        "running",
        0,
        Owner(0, 0, 1, "x"),
        0o600,
        0,
        Ring("backward", SIZE),
        Target(),
        [],
    )


def make_job(tmp_path: Path) -> Job:
    files = {}
    for cpu, size in ((-1, spill.meta_file_bytes(1000)), (3, spill.ring_file_bytes(SIZE))):
        path = tmp_path / f"file{cpu}"
        path.write_bytes(bytes(size))
        files[cpu] = OwnedFd(os.open(path, os.O_RDWR))
    return Job(10**9, LONGEST, files, [cast(MappedRing, FakeRing(True))], None)


def test_a_disk_that_fails_is_told_of_and_ends_nothing(
    tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path)
    job.meta = Meta(spill.VERSION, "boot", info(), [])

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(os, "fdatasync", fail)
        job.step()
    assert "Input/output error" in job.problem and not job.last_ns
    job.step()
    assert not job.problem and job.last_ns


def test_what_came_while_it_was_written_is_not_said_to_be_on_disk(
    tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path)
    sync, written_ns = os.fdatasync, 0

    def slow(fd: int) -> None:
        nonlocal written_ns
        written_ns = written_ns or time.time_ns()
        sync(fd)

    patch.setattr(os, "fdatasync", slow)
    job.step()
    # data_head was read by then: a sample of this moment is not in it.
    assert 0 < job.last_ns <= written_ns


def test_the_description_is_rewritten_in_turn_and_the_one_before_stays(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    for mode in (0o600, 0o640, 0o660):
        import msgspec

        job.meta = Meta(spill.VERSION, "boot", msgspec.structs.replace(info(), mode=mode), [])
        job.step()
        data = bytearray((tmp_path / "file-1").read_bytes())
        sequence, meta = spill.parse_meta(bytes(data))
        assert meta.recording.mode == mode
        if sequence > 1:
            half = len(data) // 2
            data[half * (sequence % 2) + 50] ^= 0xFF
            assert spill.parse_meta(bytes(data))[0] == sequence - 1


def test_a_description_that_outgrows_its_file_is_told_of(tmp_path: Path) -> None:
    from perfkeep.wire.messages import Kind

    job = make_job(tmp_path)
    kinds = [KindInSnapshot(i, Kind("e" * 4000, "e", bytes(64)), {}) for i in range(100)]
    job.meta = Meta(spill.VERSION, "boot", info(), kinds)
    job.step()
    assert "outgrown" in job.problem


def test_what_is_no_file_to_spill_to_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    read_end, write_end = os.pipe()
    os.close(write_end)
    cases = [
        os.open(path, os.O_RDONLY),
        os.open(path, os.O_WRONLY),
        os.open("/dev/null", os.O_RDWR),
        os.open(tmp_path, os.O_RDONLY),
        read_end,
    ]
    for number in cases:
        with OwnedFd(number) as fd, pytest.raises(BrokerError) as caught:
            check(fd, 100)
        assert caught.value.errno == errno.EINVAL
    with OwnedFd(os.open(path, os.O_RDWR)) as fd:
        check(fd, 100)
        with pytest.raises(BrokerError):
            check(fd, 101)
