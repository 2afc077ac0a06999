"""UNCLAIM, CLAIM and reopening through the library, each promise and each errno with a real event."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import perfkeep
from perfkeep.abi.perf_event import (
    DATA_HEAD_OFFSET,
    UNCLAIM_RING_BYTES,
    Attr,
    ClockId,
    Flag,
    ReadFormat,
    Sample,
    Software,
    Type,
)
from perfkeep.client.event import PerfEvent
from perfkeep.errors import BrokerError
from perfkeep.kernel import cpus, perf_fd
from perfkeep.kernel.syscalls import perf_event_open
from perfkeep.testing.requirements import cpu_hotplug, perf_events, requires, root
from perfkeep.wire.messages import Kind
from support.instance import names
from support.waiting import Eventually

pytestmark = [requires(perf_events), pytest.mark.usefixtures("running")]

LAST = max(cpus.online())
TWO_CPUS = pytest.mark.skipif(len(cpus.online()) < 2, reason="one CPU is online, two are needed")
SAMPLING = "cpu-clock/freq=1000/"


@pytest.fixture
def event() -> Iterator[PerfEvent]:
    """cpu-clock on CPU 0, disabled: while it is enabled its count grows with every read."""
    with perfkeep.open_event("cpu-clock", cpu=0) as event:
        yield event


def refused(call: Callable[[], object]) -> int:
    """The errno that the call fails with."""
    with pytest.raises(BrokerError) as caught:
        call()
    assert caught.value.errno
    return caught.value.errno


def head_of(mapping: mmap.mmap) -> int:
    return int(struct.unpack_from("=Q", mapping, DATA_HEAD_OFFSET)[0])


# --- UNCLAIM ----------------------------------------------------------------------------------


def test_unclaim_gives_an_id_above_zero_by_which_the_event_is_listed(event: PerfEvent) -> None:
    id = event.unclaim()
    assert id > 0
    assert event.ids.persistent == id
    (recording,) = perfkeep.recordings()
    (listed,) = recording.info.events
    assert (listed.id, listed.event, listed.cpus) == (id, "cpu-clock", [0])
    assert recording.info.owner.uid == os.geteuid()
    assert recording.info.owner.pid == os.getpid()


def test_without_a_name_it_is_called_by_its_id(event: PerfEvent) -> None:
    id = event.unclaim()
    assert names() == [str(id)]


def test_a_name_that_was_given_is_its_name(event: PerfEvent) -> None:
    event.unclaim("clock")
    assert names() == ["clock"]


def test_an_event_that_ran_runs_on(event: PerfEvent) -> None:
    event.enable()
    before = event.read().value
    event.unclaim("clock")
    assert event.read().value > before
    assert perfkeep.recordings()[0].info.state == "running"


def test_an_event_that_stood_still_stands_still(event: PerfEvent) -> None:
    event.unclaim("clock")
    assert event.read() == event.read()
    assert event.read().value == 0
    assert perfkeep.recordings()[0].info.state == "disabled"


def test_an_event_that_was_switched_off_again_is_not_switched_on(event: PerfEvent) -> None:
    event.enable()
    event.disable()
    before = event.read().value
    event.unclaim("clock")
    assert event.read().value == before
    assert perfkeep.recordings()[0].info.state == "disabled"


def test_the_ring_has_512_kib_and_a_page_and_takes_no_other_size(event: PerfEvent) -> None:
    event.unclaim()
    with event.mmap() as mapping:
        assert len(mapping) == (512 << 10) + mmap.PAGESIZE
    for size in (256 << 10, 1 << 20):
        with pytest.raises(OSError) as caught:
            event.mmap(size)
        assert caught.value.errno == errno.EINVAL


def test_every_mapping_shows_the_same_ring(eventually: Eventually) -> None:
    with perfkeep.open_event(SAMPLING, cpu=0) as event:
        id = event.unclaim()
        event.enable()
        with perfkeep.reopen(id, 0) as again, event.mmap() as first, again.mmap() as second:
            eventually(lambda: head_of(first) > 0)
            event.disable()
            assert head_of(first) == head_of(second)
            assert first[:] == second[:]


def test_a_ring_goes_on_recording_while_nobody_has_it_mapped(eventually: Eventually) -> None:
    with perfkeep.open_event(SAMPLING, cpu=0) as event:
        id = event.unclaim()
        event.enable()
        with event.mmap() as mapping:
            eventually(lambda: head_of(mapping) > 0)
            seen = head_of(mapping)
        with perfkeep.reopen(id, 0) as again:
            # A ring that nobody held would be a new and empty one now.
            with again.mmap() as mapping:
                assert head_of(mapping) >= seen
            eventually(lambda: head_in(again) > seen)


def head_in(event: PerfEvent) -> int:
    with event.mmap() as mapping:
        return head_of(mapping)


def test_it_goes_on_after_every_fd_is_closed() -> None:
    with perfkeep.open_event("cpu-clock", cpu=0) as event:
        event.enable()
        id = event.unclaim()
        before = event.read().value
    with perfkeep.reopen(id, 0) as again:
        assert again.read().value > before
        assert again.read().value < again.read().value


def test_it_goes_on_after_its_opener_has_exited() -> None:
    opener = (
        "import perfkeep; e = perfkeep.open_event('cpu-clock', cpu=0); e.enable();"
        "print(e.unclaim('left'), e.ids.kernel, e.read().value)"
    )
    done = subprocess.run([sys.executable, "-c", opener], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    id, kernel_id, value = map(int, done.stdout.split())
    assert names() == ["left"]
    with perfkeep.reopen(id, 0) as again:
        assert again.ids.kernel == kernel_id
        assert again.read().value > value


@contextmanager
def offline(cpu: int) -> Iterator[None]:
    switch = Path(f"/sys/devices/system/cpu/cpu{cpu}/online")
    switch.write_text("0")
    try:
        yield
    finally:
        switch.write_text("1")


@requires(cpu_hotplug, root)
def test_an_event_whose_cpu_went_offline_is_dying_ENOENT() -> None:
    with perfkeep.open_event("cpu-clock", cpu=1) as event, offline(1):
        assert refused(event.unclaim) == errno.ENOENT
        assert names() == []


def test_an_event_that_follows_a_task_has_no_cpu_EINVAL() -> None:
    with perfkeep.open_event("task-clock") as event:
        assert event.cpu == -1
        assert refused(event.unclaim) == errno.EINVAL
        assert names() == []


def test_an_event_that_is_persistent_already_EEXIST(event: PerfEvent) -> None:
    id = event.unclaim()
    assert refused(event.unclaim) == errno.EEXIST
    with perfkeep.reopen(id, 0) as again:
        assert refused(lambda: again.unclaim("other")) == errno.EEXIST
    assert names() == [str(id)]


def test_an_event_that_has_a_ring_EBUSY_until_it_is_unmapped(event: PerfEvent) -> None:
    with event.mmap():
        assert refused(event.unclaim) == errno.EBUSY
        assert names() == []
    assert event.unclaim() > 0


def test_a_name_in_use_EEXIST_and_a_number_for_a_name_EINVAL(event: PerfEvent) -> None:
    event.unclaim("clock")
    with perfkeep.open_event("task-clock", cpu=0) as other:
        assert refused(lambda: other.unclaim("clock")) == errno.EEXIST
        assert refused(lambda: other.unclaim("17")) == errno.EINVAL
        assert names() == ["clock"]
        other.unclaim("other")
    assert names() == ["clock", "other"]


@pytest.mark.parametrize("backward", [True, False])
def test_the_ring_is_of_the_kind_that_the_event_writes(backward: bool) -> None:
    attr = Attr(
        type=Type.SOFTWARE,
        config=Software.CPU_CLOCK,
        sample_period=1_000_000,
        sample_type=Sample.IDENTIFIER | Sample.TIME,
        read_format=ReadFormat.TOTAL_TIME_ENABLED,
        flags=Flag.DISABLED
        | Flag.SAMPLE_ID_ALL
        | Flag.USE_CLOCKID
        | (Flag.WRITE_BACKWARD if backward else Flag(0)),
        clockid=ClockId.MONOTONIC,
    )
    kind = Kind("cpu-clock", "cpu-clock", attr.pack())
    with PerfEvent(perf_event_open(attr, -1, 0), kind, 0) as event:
        event.unclaim("ring")
    ring = perfkeep.recordings()[0].info.ring
    assert ring.kind == ("backward" if backward else "forward")
    assert ring.bytes_per_cpu == UNCLAIM_RING_BYTES


# --- CLAIM ------------------------------------------------------------------------------------


def test_claim_takes_the_event_out_and_leaves_it_to_its_fds(event: PerfEvent) -> None:
    event.enable()
    id = event.unclaim("clock")
    event.claim()
    assert names() == []
    assert refused(lambda: perfkeep.reopen(id, 0)) == errno.ENOENT
    assert event.ids.persistent is None
    assert event.read().value < event.read().value


def test_claim_gives_the_ring_back_to_ordinary_mappings(
    event: PerfEvent, eventually: Eventually
) -> None:
    event.unclaim("clock")
    event.claim()
    eventually(lambda: perf_fd.hung_up(event.fileno()))
    with event.mmap(64 << 10) as mapping:
        assert len(mapping) == (64 << 10) + mmap.PAGESIZE


def test_claim_through_a_reopened_fd_is_the_same_claim(event: PerfEvent) -> None:
    id = event.unclaim("clock")
    with perfkeep.reopen(id, 0) as again:
        again.claim()
    assert names() == []
    assert refused(event.claim) == errno.EINVAL


def test_what_was_claimed_can_be_unclaimed_again_under_a_new_id(event: PerfEvent) -> None:
    first = event.unclaim("clock")
    event.claim()
    assert event.unclaim("clock") > first


def test_an_event_that_is_not_persistent_cannot_be_claimed_EINVAL(event: PerfEvent) -> None:
    assert refused(event.claim) == errno.EINVAL


def test_an_event_without_a_cpu_cannot_be_claimed_EINVAL() -> None:
    with perfkeep.open_event("task-clock") as event:
        assert refused(event.claim) == errno.EINVAL


# --- reopening by id --------------------------------------------------------------------------


def test_a_reopened_event_is_the_same_running_event(event: PerfEvent) -> None:
    event.enable()
    id = event.unclaim("clock")
    with perfkeep.reopen(id, 0) as again:
        assert again.ids == event.ids
        assert again.attr == event.attr
        first = event.read().value
        second = again.read().value
        assert first < second < event.read().value


@pytest.mark.parametrize("cpu", [-1, max(cpus.possible()) + 1, 1 << 20, -(1 << 40)])
def test_a_cpu_that_cannot_be_EINVAL(event: PerfEvent, cpu: int) -> None:
    id = event.unclaim()
    assert refused(lambda: perfkeep.reopen(id, cpu)) == errno.EINVAL


@pytest.mark.parametrize("id", [0, -1, 999])
def test_an_id_that_nobody_has_ENOENT(event: PerfEvent, id: int) -> None:
    event.unclaim()
    assert refused(lambda: perfkeep.reopen(id, 0)) == errno.ENOENT


@TWO_CPUS
def test_an_id_that_lives_on_another_cpu_ENOENT(event: PerfEvent) -> None:
    id = event.unclaim()
    assert refused(lambda: perfkeep.reopen(id, LAST)) == errno.ENOENT


def reopen_errno(id: int) -> tuple[str, int | None]:
    try:
        perfkeep.reopen(id, 0).close()
    except OSError as error:
        return type(error).__name__, error.errno
    return "", None


def reopen_words(id: int) -> str:
    try:
        perfkeep.reopen(id, 0).close()
    except OSError as error:
        return str(error)
    return ""


@requires(root)
def test_another_user_cannot_even_connect_EACCES(
    event: PerfEvent, instance: Path, as_nobody: Callable[[Callable[[], object]], object]
) -> None:
    id = event.unclaim()
    instance.parent.chmod(0o711)
    assert stat.S_IMODE(instance.stat().st_mode) & 0o077 == 0
    assert as_nobody(lambda: reopen_errno(id)) == ["Unreachable", errno.EACCES]
    assert str(instance) in str(as_nobody(lambda: reopen_words(id)))


@requires(root)
def test_another_user_who_could_connect_is_refused_by_the_broker_EACCES(
    event: PerfEvent, instance: Path, as_nobody: Callable[[Callable[[], object]], object]
) -> None:
    id = event.unclaim()
    instance.parent.chmod(0o711)
    instance.chmod(0o666)
    assert as_nobody(lambda: reopen_errno(id)) == ["BrokerError", errno.EACCES]
    assert as_nobody(lambda: [one.name for one in perfkeep.recordings()]) == []


@TWO_CPUS
def test_one_id_stands_for_an_event_on_all_cpus_of_a_recording() -> None:
    recording = perfkeep.start("all", ["cpu-clock", "context-switches"], ring="64K")
    first, second = recording.info.events
    assert first.id != second.id
    for one in (first, second):
        kernel_ids = set()
        for cpu in cpus.online():
            with perfkeep.reopen(one.id, cpu) as event:
                kernel_ids.add(event.ids.kernel)
        assert len(kernel_ids) == len(cpus.online())


def test_an_event_that_shares_a_ring_is_mapped_through_the_rings_owner() -> None:
    recording = perfkeep.start("all", ["cpu-clock", "context-switches"], cpus=[0], ring="64K")
    heads = []
    recording.disable()
    for one in recording.info.events:
        with perfkeep.reopen(one.id, 0) as event, event.mmap(64 << 10) as mapping:
            heads.append(head_of(mapping))
    assert heads[0] == heads[1] != 0
