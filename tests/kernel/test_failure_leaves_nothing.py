"""A failure at any step of unclaim, start and add leaves no fd, ring, id or name behind.

The broker's part runs in this process, with a keeper in a thread, so that the n-th step can be
made to fail: a request to the keeper, the keeper's own work, the mapping of a ring, an ioctl.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perfkeep.broker import joining, leaving, recordings
from perfkeep.broker.link import KeeperLink
from perfkeep.broker.policy import Policy
from perfkeep.broker.recordings import Recordings
from perfkeep.broker.recovery import recover
from perfkeep.broker.registry import Recording, Registry
from perfkeep.broker.remembered import value_of
from perfkeep.broker.rings import MappedRing
from perfkeep.broker.state import State
from perfkeep.broker.sysfs import SysfsView
from perfkeep.broker.views import Views
from perfkeep.client.opening import Opened, open_events, scope, wanted
from perfkeep.keeper.service import Keeping, serve
from perfkeep.keeper.shelf import Shelf
from perfkeep.kernel import cpus, perf_fd
from perfkeep.kernel.fd import OwnedFd
from perfkeep.testing.requirements import perf_events, requires
from perfkeep.wire import instance, messages, packets
from perfkeep.wire.socket import Peer

pytestmark = requires(perf_events)

ME = Peer(os.getpid(), os.geteuid(), os.getegid())
RING = messages.Ring("backward", 64 << 10)
EVENTS = ["cpu-clock/freq=100/", "context-switches", "page-faults"]


class Injected(OSError):
    """The failure that the test made."""


class Steps:
    """Counts what can fail; fails at the step that it was told."""

    def __init__(self) -> None:
        self.left = 0
        self.failed = False

    def fail_at(self, step: int) -> None:
        self.left, self.failed = step, False

    def take(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.failed = True
            raise Injected(errno.ENOMEM, "injected")


class FailingLink(KeeperLink):
    steps: Steps
    #: Whether what fails is the broker itself, so that it takes nothing back.
    dead = False

    def drop(self, prefix: bytes) -> None:
        if self.dead:
            raise Injected(errno.EPIPE, "the broker is dead")
        super().drop(prefix)

    def put(self, key: bytes, value: bytes, fd: int = -1, ring_bytes: int = 0) -> None:
        self.steps.take()
        super().put(key, value, fd, ring_bytes)


class FailingShelf(Shelf):
    steps: Steps

    def put(self, key: bytes, value: bytes, fd: int = -1, ring_bytes: int = 0) -> None:
        try:
            self.steps.take()
        except Injected:
            if fd >= 0:
                os.close(fd)
            raise
        super().put(key, value, fd, ring_bytes)


class FailingState(State):
    steps: Steps

    def save(self, recording: Recording, registry: Registry) -> None:
        self.steps.take()
        super().save(recording, registry)


def perf_mappings() -> int:
    return Path("/proc/self/maps").read_text().count("anon_inode:[perf_event]")


def perf_fds() -> int:
    found: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the fd of the listing itself
            found[os.readlink(f"/proc/self/fd/{number}")] += 1
    return found["anon_inode:[perf_event]"]


class Trial:
    """A broker's recordings with a keeper in a thread, either of which can be made to fail."""

    def __init__(self) -> None:
        self.steps = Steps()
        self.kept = Keeping(-1)
        self.kept.shelf = self.shelf = FailingShelf()
        self.shelf.steps = self.steps
        self.connect()

    def connect(self) -> None:
        """A broker, with what the keeper has already."""
        ours, theirs = packets.link_pair()
        self.link = FailingLink(ours)
        self.link.steps = self.steps
        self.thread = threading.Thread(target=self._keep, args=(theirs,), daemon=True)
        self.thread.start()
        self.recordings = self._recordings()
        recover(self.link, self.recordings.registry)
        self.recordings.state.follow(self.recordings.registry)

    def _recordings(self) -> Recordings:
        where = instance.current()
        state = FailingState(where.state)
        state.steps = self.steps
        return Recordings(self.link, SysfsView(where.devices), state, Policy())

    def _keep(self, theirs: Any) -> None:
        with theirs:
            serve(theirs, self.kept)

    def disconnect(self) -> None:
        self.link.socket.close()
        self.thread.join(10)
        assert not self.thread.is_alive()

    def end(self) -> None:
        self.disconnect()
        self.shelf.drop(b"")
        self.shelf.unmap(b"")
        self.recordings = self._recordings()

    def state(self) -> object:
        """All that a request could leave behind, here and with the keeper."""
        self.recordings.graves.clear()  # the loop would, as soon as it has answered
        leaving.unmap(self.link)
        registry = self.recordings.registry
        views = Views(registry, {})
        return (
            [(one.name, one.id, sorted(one.kinds)) for one in registry],
            [(one.name, value_of(one)) for _, one in self.recordings.state.load()],
            [(cpu, ring.users, ring.key) for one in registry for cpu, ring in one.rings.items()],
            [views.info(one).events for one in registry],
            registry.events,
            # Ids are not used twice, so the next one may be another.
            {key: slot.value for key, slot in self.shelf.items() if key != b"#ids"},
            perf_mappings(),
            perf_fds(),
        )

    def survives(self, request: Callable[[], object]) -> bool:
        """Whether the request got through. Keeps no traceback, which would keep fds open."""
        try:
            request()
        except OSError as error:
            assert self.steps.failed, error
            assert error.errno == errno.ENOMEM
            return False
        assert not self.steps.failed, "a failure was swallowed"
        return True


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    trial = Trial()

    class FailingRing(MappedRing):
        def __init__(
            self, cpu: int, owner: OwnedFd, key: bytes, bytes: int, backward: bool, overwrites: bool
        ) -> None:
            self.key = key
            trial.steps.take()
            super().__init__(cpu, owner, key, bytes, backward, overwrites)

    def failing_ioctl(*arguments: Any) -> object:
        trial.steps.take()
        return fcntl.ioctl(*arguments)

    monkeypatch.setattr(joining, "MappedRing", FailingRing)
    for room in (joining, recordings):
        monkeypatch.setattr(room, "fcntl", SimpleNamespace(ioctl=failing_ioctl))
    yield trial
    trial.end()


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Three kinds of event on every CPU, as a client holds them."""
    opened = open_events(wanted(EVENTS), scope())
    yield opened
    opened.close()


@pytest.fixture
def one() -> Iterator[Opened]:
    """One event on one CPU, as for unclaim."""
    opened = open_events(wanted(EVENTS[:1]), scope([0]))
    yield opened
    opened.close()


def start(trial: Trial, name: str | None, opened: Opened) -> messages.Started:
    request = messages.Start(name, RING, opened.kinds, opened.slots, messages.Target(), True)
    return trial.recordings.start(ME, request, [fd.dup() for fd in opened.fds])


def add(trial: Trial, name: str, opened: Opened) -> messages.Started:
    request = messages.Add(name, opened.kinds, opened.slots)
    return trial.recordings.add(ME, request, [fd.dup() for fd in opened.fds])


def fail_at_every_step(
    trial: Trial, request: Callable[[], object], back: Callable[[], object]
) -> int:
    """Let the request fail at its first step, at its second, … and succeed after each failure.

    Args:
        back: takes back what the request did.
    """
    before = trial.state()
    for step in range(1, 1000):
        trial.steps.fail_at(step)
        if trial.survives(request):
            return step - 1
        assert trial.state() == before, f"step {step} left something behind"
        trial.steps.fail_at(0)
        request()
        assert trial.state() != before
        back()
        assert trial.state() == before, f"after step {step} something stayed"
    raise AssertionError("there is no end to the steps")


@pytest.mark.parametrize("name", ["flight", None])
def test_an_unclaim_that_fails_leaves_the_event_as_it_was(
    trial: Trial, one: Opened, name: str | None
) -> None:
    def back() -> None:
        (claimed,) = [one.name for one in trial.recordings.registry]
        trial.recordings.claim(ME, claimed)
        trial.recordings.graves.clear()
        leaving.unmap(trial.link)
        assert perf_fd.hung_up(one.fds[0].fileno()), "the event has a ring still"

    steps = fail_at_every_step(trial, lambda: start(trial, name, one), back)
    # The next id, the kind, the event and the recording, each with the keeper; the mapping; ENABLE; the disk.
    assert steps == 2 * 4 + 3


def test_a_start_that_fails_leaves_nothing(trial: Trial, opened: Opened) -> None:
    steps = fail_at_every_step(
        trial,
        lambda: start(trial, "flight", opened),
        lambda: trial.recordings.claim(ME, "flight"),
    )
    assert steps > 3 * len(opened.fds)


def test_an_add_that_fails_leaves_the_recording_as_it_was(
    trial: Trial, one: Opened, opened: Opened
) -> None:
    start(trial, "flight", one)
    joining: list[int] = []

    def back() -> None:
        trial.recordings.remove(ME, "flight", joining)
        # What left is remembered for snapshots, which is no remnant of a failure.
        (made,) = trial.recordings.registry
        made.retired.clear()
        trial.link.drop(made.prefix + b"r/")

    def request() -> None:
        joining[:] = add(trial, "flight", opened).events

    assert fail_at_every_step(trial, request, back) > 3 * len(opened.fds)


def test_a_failure_of_another_recording_touches_nobody(
    trial: Trial, one: Opened, opened: Opened
) -> None:
    start(trial, "here", one)
    before = trial.state()
    trial.steps.fail_at(12)
    assert not trial.survives(lambda: start(trial, "other", opened))
    assert trial.state() == before
    assert perf_fd.event_id(one.fds[0].fileno())


@pytest.mark.parametrize("joins", [False, True], ids=["start", "add"])
def test_a_broker_that_dies_at_any_step_leaves_all_of_a_request_or_nothing(
    trial: Trial, one: Opened, joins: bool
) -> None:
    if joins:
        start(trial, "flight", one)
    before = trial.state()
    request = add if joins else start
    step, failed = 0, True
    while failed:
        step += 1
        trial.steps.fail_at(step)
        # Nothing can be taken back: that is how a kill looks to the keeper.
        trial.link.dead = True
        opened = open_events(wanted(EVENTS), scope())
        failed = not trial.survives(partial(request, trial, "flight", opened))
        opened.close()
        trial.steps.fail_at(0)
        trial.disconnect()
        trial.connect()
        if failed:
            assert trial.state() == before, f"dead at step {step}"
    kinds = [kind for made in trial.recordings.registry for kind in made.kinds.values()]
    assert [len(kind.cpus) for kind in kinds[-3:]] == [len(cpus.online())] * 3
