"""The sideband of a recording: a small ring per CPU in which the kernel tells which processes come,
go, and map what; folded into Processes before it is overwritten.

The kernel wakes us when a quarter of a ring is new, and before a snapshot we look ourselves;
otherwise it costs nothing. What is read is also appended to a memfd that the keeper holds: the
next broker knows of every process that this one knew of.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property, partial

import msgspec

from perfkeep.abi.perf_event import Attr, Sample
from perfkeep.broker.joining import Undo, redirect
from perfkeep.broker.link import Item, KeeperLink
from perfkeep.broker.processes import Processes, Run, in_order
from perfkeep.broker.rings import MappedRing
from perfkeep.errors import BrokerError, Unreachable
from perfkeep.kernel import perf_fd, refusal
from perfkeep.kernel.cpus import online
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.memfd import sealed
from perfkeep.wire.messages import Kind, KindInSnapshot
from perfkeep.wire.sideband import MOST_LOGGED, MOST_SCANNED, RING_BYTES
from perfkeep.wire.spill import pieces

_MASK64 = (1 << 64) - 1
#: What may be half-written at the oldest end: a path of 4 KiB in each of four contexts.
_MARGIN = 4 * (4096 + 256)
#: No sideband is read more often because of wake-ups: whoever maps and unmaps code as fast as it
#: goes shall lose its own records, and not keep the broker from others.
_PAUSE_S = 0.005
#: Ids of events that have died are remembered, as records carry them; so many for each CPU.
_MOST_IDS = 256


class _EventValue(msgspec.Struct):
    """Beside an event's fd on the shelf."""

    cpu: int


class _LogValue(msgspec.Struct):
    """Beside the log's fd on the shelf. How far each ring has been read stands here and not beside
    the events, as it is put down in one go with how much of the log that made: nothing is taken up
    twice, or never, whenever the broker dies.

    Attributes:
        logged: bytes of the log that count; None: all, as brokers had it that did not say.
        last: data_head up to which each ring has been read, by the key of its event.
    """

    kernel_ids: dict[int, list[int]]
    scanned: bool
    lost: bool
    logged: int | None = None
    last: dict[str, int] = {}


class _Event:
    __slots__ = ("cpu", "fd", "key", "last", "ring")

    def __init__(self, cpu: int, fd: OwnedFd, key: bytes, ring: MappedRing | None = None) -> None:
        self.cpu = cpu
        self.fd = fd
        self.key = key
        #: None: it writes into the ring of another one on its CPU.
        self.ring = ring
        self.last = 0

    def value(self) -> bytes:
        return msgspec.json.encode(_EventValue(self.cpu))


def read_new(ring: MappedRing, last: int, sample_type: Sample = Sample(0)) -> tuple[Run, int, bool]:
    """The records that came after data_head was `last`; data_head now; and whether some of them were overwritten before they were read."""
    head = ring.head()
    new = (last - head) & _MASK64
    length = min(new, ring.bytes)
    data = b"".join(
        bytes(ring.data(start, end)) for start, end in pieces(head, length, ring.bytes, True)
    )
    moved = (head - ring.head()) & _MASK64
    safe = max(0, min(length, ring.bytes - moved - _MARGIN))
    return Run(data[:safe], sample_type), head, new > safe


class Sideband:
    """One recording's.

    Args:
        prefix: what its keys on the keeper's shelf begin with.
        kind: how its events are opened.

    Attributes:
        kernel_ids: of its events by CPU, dead ones too.
        scanned: what ran before its rings came is known.
        lost: something was overwritten before it was read.
    """

    def __init__(self, prefix: bytes, kind: Kind) -> None:
        self.kind = kind
        self.kernel_ids: dict[int, list[int]] = {}
        self.scanned = False
        self.lost = False
        self.processes = Processes()
        #: When it was read last because the kernel woke us, by time.monotonic.
        self.woke = float("-inf")
        self._prefix = prefix
        self._sample_type = Attr.unpack(kind.attr).sample_type
        self._events: list[_Event] = []
        self._log: OwnedFd | None = None
        self._log_bytes = 0
        self._logs = 0
        #: A spill reads log and rings in a thread of its own.
        self._lock = threading.RLock()

    @property
    def cpus(self) -> set[int]:
        return {event.cpu for event in self._events if event.ring is not None}

    @property
    def complete(self) -> bool:
        """Whether every process is known that lives on these CPUs."""
        return self.scanned and not self.lost and not self.processes.forgot

    def event(self) -> KindInSnapshot:
        """What wrote its records, as snapshots describe events."""
        return KindInSnapshot(0, self.kind, self.kernel_ids)

    # --- what it is made of -------------------------------------------------------------------

    def add(
        self, keeper: KeeperLink, cpus: list[int], fds: list[OwnedFd], locked: Mapping[str, int]
    ) -> None:
        """Let events join. The first on a CPU owns its ring, and what was there before goes.

        Args:
            locked: what rings take already; see quotas.locked.

        Raises:
            BrokerError: EINVAL: not an fd for each · ENOENT: a CPU is offline.
            OSError: the kernel makes no ring; nothing has changed.
        """
        if not fds or len(fds) != len(cpus):
            raise BrokerError(errno.EINVAL, f"{len(cpus)} CPUs and {len(fds)} fds")
        if not set(cpus) <= set(online()):
            raise BrokerError(errno.ENOENT, "a CPU of the sideband is offline")
        new: list[_Event] = []
        with Undo() as undo:
            for cpu, fd in zip(cpus, fds, strict=True):
                kernel_id = perf_fd.check(fd.fileno())
                key = b"%sa/%d/%d/" % (self._prefix, cpu, kernel_id)
                undo.push(partial(keeper.drop, key))
                owner = next((e for e in new if e.cpu == cpu and e.ring is not None), None)
                event = _Event(cpu, fd, key)
                if owner is not None and owner.ring is not None:
                    redirect(fd, owner.ring)
                    keeper.put(key, event.value(), fd.fileno())
                else:
                    try:
                        keeper.put(key, event.value(), fd.fileno(), RING_BYTES)
                        event.ring = MappedRing(cpu, fd, key, RING_BYTES, True)
                    except OSError as error:
                        raise refusal.of_ring(
                            error, RING_BYTES, len(cpus), locked, keeper.pinned()
                        ) from error
                new.append(event)
        self.read(keeper)
        old = [event for event in self._events if event.cpu in cpus]
        with self._lock:
            self._events = [event for event in self._events if event.cpu not in cpus] + new
        for event in new:
            known = self.kernel_ids.setdefault(event.cpu, [])
            known.append(perf_fd.event_id(event.fd.fileno()))
            del known[:-_MOST_IDS]
        for event in old:
            keeper.drop(event.key)
            event.fd.close()
        self.scanned = False
        self._renew_log(keeper)

    def fds(self) -> list[OwnedFd]:
        return [event.fd for event in self._events]

    def close(self) -> list[object]:
        """What is to be let go of at leisure."""
        with self._lock:
            graves: list[object] = [*self._events, self._log]
            for event in self._events:
                event.ring = None
            self._events, self._log = [], None
        return graves

    # --- what it tells ------------------------------------------------------------------------

    def scan(self, keeper: KeeperLink, file: OwnedFd) -> None:
        """Take up what a client found in /proc."""
        with self._lock:
            self._fold(keeper, os.pread(file.fileno(), MOST_SCANNED, 0))
        self.read(keeper)
        self.scanned, self.lost, self.processes.forgot = True, False, False
        self._put_log_value(keeper)

    def read(self, keeper: KeeperLink) -> None:
        """Take up what is new in the rings, in the order of time: a task begins on one CPU, and may
        have gone on and ended on another.
        """
        with self._lock:
            found = self._new()
            if found:
                # What led to any of these has come by now. What came later waits for the next time:
                # what led to that may be in a ring that we have looked at before.
                found += self._new(until=max(max(run.times) for run in found))
                self._fold(keeper, in_order(found))

    def _new(self, until: int = _MASK64) -> list[Run]:
        """What each ring has that was not read yet; it counts as read."""
        found: list[Run] = []
        for event in self._events:
            if event.ring is None or event.ring.head() == event.last:
                continue
            new, head, lost = read_new(event.ring, event.last, self._sample_type)
            event.last = head + new.cut(until) & _MASK64
            if new.times:
                found.append(new)
            self.lost |= lost
        return found

    def _fold(self, keeper: KeeperLink, data: bytes | bytearray) -> None:
        self.processes.fold(data)
        if self._log is not None and data:
            self._log_bytes += os.pwrite(self._log.fileno(), data, self._log_bytes)
            if self._log_bytes > MOST_LOGGED:
                self._renew_log(keeper)
            else:
                self._put_log_value(keeper)

    def since(self, log: int, at: int) -> tuple[int, bytes, bytes]:
        """For a thread of its own: the number of the log, what is in it from `at` on, and what has
        not been read yet. Of another log than number `log` everything is given.
        """
        with self._lock:
            number, logged = self._logs, b""
            if self._log is not None:
                at = at if log == number else 0
                logged = os.pread(self._log.fileno(), self._log_bytes - at, at)
            unread = [(event.ring, event.last) for event in self._events if event.ring is not None]
        new = [read_new(ring, last, self._sample_type)[0] for ring, last in unread]
        return number, logged, bytes(in_order(new))

    def copy(self, kernel: bool) -> tuple[OwnedFd, int]:
        """All that is known in a sealed memfd, and its bytes; see Processes.records."""
        data = b"".join(self.processes.records(kernel))
        return sealed("perfkeep-told", data), len(data)

    # --- what outlives us ---------------------------------------------------------------------

    def _renew_log(self, keeper: KeeperLink) -> None:
        """Begin a new one with what is known now: the old one only grows."""
        log = OwnedFd(os.memfd_create("perfkeep-processes", os.MFD_CLOEXEC))
        data = b"".join(self.processes.records())
        os.write(log.fileno(), data)
        with self._lock:
            old, self._log, self._log_bytes = self._log, log, len(data)
            self._logs += 1
        _put(keeper, self._log_key(self._logs), self._log_value(), log.fileno())
        if old is not None:
            old.close()
            with suppress(Unreachable):  # the next keeper is not told of it
                keeper.drop(self._log_key(self._logs - 1))

    def _log_key(self, number: int) -> bytes:
        return b"%sp/%d/" % (self._prefix, number)

    def _log_value(self) -> bytes:
        last = {event.key.decode(): event.last for event in self._events if event.ring is not None}
        value = _LogValue(self.kernel_ids, self.scanned, self.lost, self._log_bytes, last)
        return msgspec.json.encode(value)

    def _put_log_value(self, keeper: KeeperLink) -> None:
        _put(keeper, self._log_key(self._logs), self._log_value())

    def hand_over(self, keeper: KeeperLink) -> None:
        """Give everything to a new keeper."""
        for event in self._events:
            size = event.ring.bytes if event.ring is not None else 0
            keeper.put(event.key, event.value(), event.fd.fileno(), size)
        if self._log is not None:
            keeper.put(self._log_key(self._logs), self._log_value(), self._log.fileno())

    def recover(self, items: dict[bytes, Item]) -> None:
        """Take up what the keeper has."""
        logs = []
        for key, item in items.items():
            if item.fd is None or not key.startswith(self._prefix):
                continue
            part = key[len(self._prefix) :].split(b"/")
            if part[0] == b"a":
                value = msgspec.json.decode(item.value, type=_EventValue)
                ring = None
                if item.ring_bytes:
                    ring = MappedRing(value.cpu, item.fd, key, item.ring_bytes, True)
                self._events.append(_Event(value.cpu, item.fd, key, ring))
            elif part[0] == b"p":
                logs.append((int(part[1]), item))
        # Two: the broker died when it had begun a new one, which is whole.
        for self._logs, item in sorted(logs, key=lambda log: log[0])[-1:]:
            log = msgspec.json.decode(item.value, type=_LogValue)
            self.kernel_ids, self.scanned, self.lost = log.kernel_ids, log.scanned, log.lost
            self._log = item.fd
            assert self._log is not None
            size = os.fstat(self._log.fileno()).st_size
            self._log_bytes = size if log.logged is None else log.logged
            self.processes.fold(os.pread(self._log.fileno(), self._log_bytes, 0))
            for event in self._events:
                event.last = log.last.get(event.key.decode(), 0)


def _put(keeper: KeeperLink, key: bytes, value: bytes, fd: int = -1) -> None:
    """A keeper that has died has a successor in a moment, which is told everything."""
    with suppress(Unreachable):
        keeper.put(key, value, fd)


class Wakeups:
    """Which rings have something new, as one fd that can be waited for."""

    def __init__(self) -> None:
        self._watched: dict[int, Sideband] = {}

    @cached_property
    def _epoll(self) -> select.epoll:
        return select.epoll()

    def fileno(self) -> int:
        return self._epoll.fileno()

    def watch(self, sideband: Sideband) -> None:
        """Until `forget`, which must come before any of its events is closed."""
        for fd in sideband.fds():
            self._epoll.register(fd.fileno(), select.EPOLLIN)
            self._watched[fd.fileno()] = sideband

    def forget(self, sideband: Sideband) -> None:
        for number in [number for number, one in self._watched.items() if one is sideband]:
            self._forget(number)

    def _forget(self, number: int) -> None:
        self._epoll.unregister(number)
        del self._watched[number]

    def ready(self) -> set[Sideband]:
        """Those to be read: all of them, but for those that were a moment ago. A perf event says only
        once that there is something new, and has said so to whoever waited for our fd.
        """
        now = time.monotonic()
        found = {one for one in self._watched.values() if now - one.woke >= _PAUSE_S}
        for one in found:
            one.woke = now
        for number, bits in self._epoll.poll(0):
            if bits & select.EPOLLHUP:
                # Its tasks or its CPU are gone, and it would say so for ever.
                self._forget(number)
        return found
