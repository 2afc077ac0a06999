"""Readers who may not see the kernel's addresses get snapshots without them, by a process of its own."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import perfkeep
from perfkeep import events, records
from perfkeep.abi.perf_event import Attr, Ioctl, Sample
from perfkeep.abi.records import Record
from perfkeep.broker import redacting
from perfkeep.broker.redacting import Redactor, may_see_kernel
from perfkeep.broker.rings import MappedRing, RingCopy
from perfkeep.client.connection import disconnect
from perfkeep.client.opening import kind_of
from perfkeep.client.snapshot import Snapshot
from perfkeep.errors import BrokerError
from perfkeep.events.opening import for_flight_ring
from perfkeep.formats.perf_data import reader
from perfkeep.kernel import perf_fd
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.syscalls import perf_event_open
from perfkeep.records.sample import Layout
from perfkeep.testing.load import heartbeat
from perfkeep.testing.requirements import perf_events, requires, root
from perfkeep.wire import messages
from perfkeep.wire.messages import KindInSnapshot
from support.instance import Running
from support.nobody import AsNobody
from support.waiting import Eventually

pytestmark = requires(perf_events, root)

KERNEL, MARKS = 0xFF << 56, 2**64 - 4096


def addresses(snapshot: Snapshot) -> tuple[int, int, int]:
    """How many samples, addresses of the kernel, and addresses of user space it has."""
    with snapshot.open() as file:
        data = reader.parse(memoryview(file.read()))
    layout, samples, kernel, user = Layout(data.events[0].attr), 0, 0, 0
    for kind, record in data.records():
        if kind == Record.SAMPLE:
            sample = layout.decode(record)
            samples += 1
            chain = [sample.ip or 0, *sample.callchain]
            kernel += sum(KERNEL <= one < MARKS for one in chain)
            user += sum(0 < one < 1 << 47 for one in chain)
    return samples, kernel, user


@contextmanager
def sysctl(name: str, value: int) -> Iterator[None]:
    path = Path(f"/proc/sys/kernel/{name}")
    before = path.read_text()
    path.write_text(str(value))
    try:
        yield
    finally:
        path.write_text(before)


@pytest.fixture
def shared(running: Running) -> Iterator[perfkeep.Recording]:
    """A recording with the kernel's addresses in it, which everyone may read."""
    running.socket.parent.chmod(0o711)
    with heartbeat(), sysctl("perf_event_paranoid", 2):
        recording = perfkeep.start(
            "flight", ["context-switches/period=1/"], cpus=[0], ring="256K", mode=0o604,
            call_chains=True,
        )  # fmt: skip
        disconnect()
        yield recording


def seen() -> tuple[int, int, int]:
    with perfkeep.Recording("flight").snapshot() as snapshot:
        return addresses(snapshot)


def test_a_reader_whom_the_kernel_hides_them_from_sees_none_and_the_owner_all(
    shared: perfkeep.Recording, as_nobody: AsNobody, eventually: Eventually
) -> None:
    eventually(lambda: seen()[0] > 50)
    disconnect()
    samples, kernel, _ = as_nobody(seen)
    assert samples > 50 and kernel == 0
    # Every switch of tasks has at least one frame of the kernel's, and the ring goes on turning.
    again, there, _ = seen()
    assert there > again > 50


def test_a_reader_to_whom_the_kernel_shows_them_sees_them(
    shared: perfkeep.Recording, as_nobody: AsNobody, eventually: Eventually
) -> None:
    eventually(lambda: seen()[0] > 50)
    disconnect()
    with sysctl("perf_event_paranoid", 1), sysctl("kptr_restrict", 0):
        assert may_see_kernel()
        _, kernel, _ = as_nobody(seen)
    assert kernel > 0
    with sysctl("perf_event_paranoid", 1), sysctl("kptr_restrict", 1):
        assert not may_see_kernel()


def test_no_redactor_stays_when_its_reader_has_gone(
    running: Running, shared: perfkeep.Recording, as_nobody: AsNobody, eventually: Eventually
) -> None:
    def redactors() -> list[int]:
        found: list[int] = []
        for name in os.listdir("/proc"):
            try:
                command = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            if (
                b"redactor/__main__.py" in command
                and str(running.socket.parent).encode()
                in Path(f"/proc/{name}/environ").read_bytes()
            ):
                found.append(int(name))
        return found

    as_nobody(seen)
    eventually(lambda: not redactors())
    broker, _ = running.pids()
    eventually(lambda: "redacted" not in str(os.listdir(f"/proc/{broker}/fd")))


def make_copy(size: int) -> RingCopy:
    fd = OwnedFd(os.memfd_create("copy"))
    os.ftruncate(fd.fileno(), size)
    return RingCopy(fd, size, 0, 0)


def test_a_redactor_that_dies_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    main = tmp_path / "main.py"
    main.write_text("import sys; sys.exit(3)")
    redactor = Redactor(str(main), [])
    with pytest.raises(BrokerError) as caught:
        redactor.redact(make_copy(4096), True, 4096)
    assert caught.value.errno == errno.EIO
    redactor.close()
    os.waitpid(-1, 0)


SILENT = """
import socket, sys
link = socket.socket(fileno=int(sys.argv[2]))
while link.recv(4096):
    pass
"""

# The redactor itself, with a decoder that finds no end.
ENDLESS = """
import runpy, signal, sys
sys.path.insert(0, {src!r})
import perfkeep.redactor.redact as module
module.redact = lambda *_: signal.pause()
runpy.run_path({main!r})
"""


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redacting, "_PATIENCE_S", 1)
    main = tmp_path / "main.py"
    main.write_text(SILENT)
    redactor = Redactor(str(main), [])
    for number in (errno.ETIMEDOUT, errno.EIO):
        with pytest.raises(BrokerError) as caught:
            redactor.redact(make_copy(4096), True, 4096)
        assert caught.value.errno == number
    redactor.close()
    os.waitpid(-1, 0)


def test_a_redactor_that_finds_no_end_ends_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redacting, "_PATIENCE_S", 1)
    main, src = tmp_path / "main.py", Path(perfkeep.__file__).parent
    real = str(src / "redactor" / "__main__.py")
    main.write_text(ENDLESS.format(src=str(src.parent), main=real))
    redactor = Redactor(str(main), [])
    with pytest.raises(BrokerError) as caught:
        redactor.redact(make_copy(4096), True, 4096)
    assert caught.value.errno in (errno.ETIMEDOUT, errno.EIO)
    assert os.WTERMSIG(os.waitpid(-1, 0)[1]) == signal.SIGALRM
    redactor.close()


def open_ring(size: int, attrs: list[Attr]) -> tuple[MappedRing, list[OwnedFd]]:
    """Events of CPU 0 that run, and the backward ring of all of them."""
    fds = [perf_event_open(attr, -1, 0) for attr in attrs]
    ring = MappedRing(0, fds[0], b"", size, True)
    for fd in fds[1:]:
        fcntl.ioctl(fd.fileno(), Ioctl.SET_OUTPUT, fds[0].fileno())
    for fd in fds:
        fcntl.ioctl(fd.fileno(), Ioctl.ENABLE, 0)
    return ring, fds


def kinds_of(attrs: list[Attr], fds: list[OwnedFd], specs: list[str]) -> list[KindInSnapshot]:
    found: list[KindInSnapshot] = []
    for attr, fd, spec in zip(attrs, fds, specs, strict=True):
        kind = kind_of(events.parse(spec)[0], attr)
        found.append(KindInSnapshot(len(found) + 1, kind, {0: [perf_fd.event_id(fd.fileno())]}))
    return found


def in_kernel_text(data: bytes) -> list[int]:
    """Offsets, at steps of 4, of what points into the upper 2 GiB, where the kernel's code is."""
    found = (one.start() - 4 for one in re.finditer(rb"(?=\xff{4})", data))
    return [
        at
        for at in found
        if at >= 0
        and at % 4 == 0
        and 2**64 - 2**31 <= int.from_bytes(data[at : at + 8], "little") < MARKS
    ]


def bytes_of(copy: RingCopy) -> bytes:
    with copy.fd as fd:
        return os.pread(fd.fileno(), copy.bytes, 0)


MAIN = str(Path(perfkeep.__file__).parent / "redactor" / "__main__.py")


def test_of_a_ring_that_is_written_to_nothing_is_left_where_it_was_torn(
    tracefs_mounted: Path,
) -> None:
    specs = ["sched:sched_switch", "kmem:kmem_cache_alloc", "context-switches/period=1/"]
    parsed = [events.parse(spec)[0] for spec in specs]
    attrs = [for_flight_ring(one, call_chains=one.tracepoint is None) for one in parsed]
    ring, fds = open_ring(1 << 16, attrs)
    redactor = Redactor(MAIN, kinds_of(attrs, fds, specs))
    mine = os.sched_getaffinity(0)
    try:
        with heartbeat(every_us=1), heartbeat(every_us=1):
            os.sched_setaffinity(0, {max(mine)})
            torn = 0
            deadline = time.monotonic() + 20
            while torn < 100 and time.monotonic() < deadline:
                copy = ring.copy()
                if copy.head_before == copy.head_after:
                    copy.fd.close()
                    continue
                torn += 1
                assert not in_kernel_text(bytes_of(redactor.redact(copy, True, ring.bytes)))
            assert torn
    finally:
        os.sched_setaffinity(0, mine)
        redactor.close()
        os.waitpid(-1, 0)
        for fd in fds:
            fd.close()


def test_what_the_ring_held_before_a_short_stack_is_not_in_it(tracefs_mounted: Path) -> None:
    """What the kernel cannot read of a user's stack it leaves as it was in the ring."""
    specs = ["kmem:kmem_cache_alloc", "context-switches/period=1/"]
    first = for_flight_ring(events.parse(specs[0])[0], call_chains=False)
    second = for_flight_ring(events.parse(specs[1])[0], call_chains=False)
    second = replace(
        second, sample_type=second.sample_type | Sample.STACK_USER, sample_stack_user=32768
    )
    ring, fds = open_ring(1 << 21, [first, second])
    redactor = Redactor(MAIN, kinds_of([first, second], fds, specs))
    try:
        with heartbeat():
            deadline = time.monotonic() + 20
            while -ring.head() % 2**64 < 2 * ring.bytes and time.monotonic() < deadline:
                os.listdir("/proc/self/task")
        copy = ring.copy()
        before = os.pread(copy.fd.fileno(), copy.bytes, 0)
        after = bytes_of(redactor.redact(copy, True, ring.bytes))
        assert in_kernel_text(before) and not in_kernel_text(after)
        # What readers take is all there.
        valid = ring.bytes - 4 * (1 << 16) - ((copy.head_before - copy.head_after) % 2**64)
        walks = [records.walk(data, 0, valid) for data in (before, after)]
        assert walks[0] == walks[1] and walks[0].records > 50
    finally:
        redactor.close()
        os.waitpid(-1, 0)
        for fd in fds:
            fd.close()


def test_physical_addresses_are_for_the_owner_only(running: Running) -> None:
    from perfkeep.broker.redacting import check_physical

    attr = Attr(type=1, sample_type=Sample.PHYS_ADDR | Sample.IDENTIFIER).pack()
    kind = messages.KindInSnapshot(1, messages.Kind("mem", "mem", attr), {})
    info = perfkeep.start("x", ["cpu-clock"], cpus=[0], ring="4K").info
    with pytest.raises(BrokerError) as caught:
        check_physical(messages.Snapshot(info, [kind], []))
    assert caught.value.errno == errno.EACCES
