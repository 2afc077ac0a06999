"""Readers who may not see the kernel's addresses get snapshots without them, by a process of its own."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import perfkeep
from perfkeep.abi.records import Record
from perfkeep.broker.redacting import Redactor, may_see_kernel
from perfkeep.broker.rings import RingCopy
from perfkeep.client.connection import disconnect
from perfkeep.client.snapshot import Snapshot
from perfkeep.errors import BrokerError
from perfkeep.formats.perf_data import reader
from perfkeep.kernel.fd import OwnedFd
from perfkeep.records.sample import Layout
from perfkeep.testing.load import heartbeat
from perfkeep.testing.requirements import perf_events, requires, root
from perfkeep.wire import messages

pytestmark = requires(perf_events, root)

# Of tests/kernel/conftest.py, which cannot be imported.
Running = Any
AsNobody = Callable[[Callable[[], object]], Any]
Eventually = Callable[[Callable[[], object]], None]

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
        found = []
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
        redactor.redact(make_copy(4096), True)
    assert caught.value.errno == errno.EIO
    redactor.close()
    os.waitpid(-1, 0)


def test_physical_addresses_are_for_the_owner_only(running: Running) -> None:
    from perfkeep.abi.perf_event import Attr, Sample
    from perfkeep.broker.redacting import check_physical

    attr = Attr(type=1, sample_type=Sample.PHYS_ADDR | Sample.IDENTIFIER).pack()
    kind = messages.KindInSnapshot(1, messages.Kind("mem", "mem", attr), {})
    info = perfkeep.start("x", ["cpu-clock"], cpus=[0], ring="4K").info
    with pytest.raises(BrokerError) as caught:
        check_physical(messages.Snapshot(info, [kind], []))
    assert caught.value.errno == errno.EACCES
