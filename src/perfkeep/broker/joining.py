"""How an event becomes part of a recording: checked, given its ring, held by the keeper.

Whatever fails half-way is undone.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import msgspec

from perfkeep.abi.perf_event import Ioctl
from perfkeep.broker import quotas
from perfkeep.broker.link import KeeperLink
from perfkeep.broker.registry import Event, KindOfEvent, Recording, Registry
from perfkeep.broker.remembered import EventValue, event_key, kind_key
from perfkeep.broker.rings import MappedRing
from perfkeep.errors import BrokerError, KernelRefused
from perfkeep.kernel import cpus, perf_fd, refusal
from perfkeep.kernel.fd import OwnedFd
from perfkeep.wire.messages import Kind, Slot
from perfkeep.wire.sideband import RING_BYTES


class Undo:
    """Steps that take back what was done, newest first, unless all went well."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def push(self, step: Callable[[], object]) -> None:
        self._steps.append(step)

    def __enter__(self) -> Undo:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            for step in reversed(self._steps):
                # One step that fails (the keeper died) must not keep the others from running.
                with suppress(OSError):
                    step()


def detach(fd: OwnedFd) -> None:
    """Undo SET_OUTPUT; an event that someone has mapped (before Linux 6.17) keeps its ring."""
    from perfkeep.kernel.syscalls import detach_output  # few need it

    with suppress(OSError):
        detach_output(fd.fileno())


def check_fds(
    registry: Registry,
    kinds: list[Kind],
    slots: list[Slot],
    fds: list[OwnedFd],
    adopted: bool = False,
) -> list[tuple[Slot, OwnedFd, int]]:
    """The fds with their kernel ids, if each can become persistent.

    Args:
        adopted: they must have rings, instead of none.

    Raises:
        BrokerError: with the errno that the contract names for UNCLAIM.
    """
    if not kinds or len(slots) != len(fds):
        raise BrokerError(errno.EINVAL, f"{len(slots)} slots were named and {len(fds)} fds staged")
    if {slot.kind for slot in slots} != set(range(len(kinds))):
        raise BrokerError(errno.EINVAL, "every kind of event needs an fd, and every fd a kind")
    online = set(cpus.online())
    seen: set[int] = set()
    events = []
    for slot, fd in zip(slots, fds, strict=True):
        kernel_id = perf_fd.check(fd.fileno())
        if slot.cpu < 0:
            raise BrokerError(
                errno.EINVAL,
                "an event that follows a task on every CPU cannot persist",
                hint="open it once for each CPU",
            )
        if registry.by_kernel_id(kernel_id) or kernel_id in seen:
            raise BrokerError(errno.EEXIST, "this event is persistent already")
        if perf_fd.hung_up(fd.fileno()):
            if adopted:
                raise BrokerError(errno.EINVAL, "this event has no ring that could be adopted")
        elif not adopted:
            raise BrokerError(
                errno.EBUSY,
                "this event has a ring already",
                hint="munmap(2) its ring before UNCLAIM",
            )
        if slot.cpu not in online:
            raise BrokerError(errno.ENOENT, f"this event is dying: CPU {slot.cpu} is offline")
        seen.add(kernel_id)
        events.append((slot, fd, kernel_id))
    return events


def join_all(
    keeper: KeeperLink,
    registry: Registry,
    recording: Recording,
    kinds: dict[int, Kind],
    events: list[tuple[Slot, OwnedFd, int]],
    undo: Undo,
    adopted: bool = False,
) -> list[KindOfEvent]:
    """Give the events their rings, unless they have them, and put them on the keeper's shelf."""
    made = [KindOfEvent(id, kind) for id, kind in kinds.items()]
    for kind in made:
        key = kind_key(recording, kind.id)
        undo.push(partial(keeper.drop, key))
        keeper.put(key, msgspec.json.encode(kind.kind))
    for slot, fd, kernel_id in events:
        kind = made[slot.kind]
        joined = join(keeper, registry, recording, kind, slot.cpu, fd, kernel_id, undo, adopted)
        kind.events.append(joined)
    return made


def join(
    keeper: KeeperLink,
    registry: Registry,
    recording: Recording,
    kind: KindOfEvent,
    cpu: int,
    fd: OwnedFd,
    kernel_id: int,
    undo: Undo,
    adopted: bool = False,
) -> Event:
    """Give one event its ring, unless it has one, and put it on the keeper's shelf."""
    key = event_key(recording, kind, cpu, kernel_id)
    undo.push(partial(keeper.drop, key))
    value = msgspec.json.encode(EventValue(kind.id, cpu))
    ring = recording.rings.get(cpu)
    if ring is None:
        undo.push(partial(recording.rings.pop, cpu, None))
        try:
            ring = _make_ring(keeper, recording, cpu, fd, key, value)
        except OSError as error:
            raise _no_ring(error, keeper, registry, recording) from error
    else:
        if not adopted:
            redirect(fd, ring)
            undo.push(partial(detach, fd))
        keeper.put(key, value, fd.fileno())
    ring.users += 1
    undo.push(partial(setattr, ring, "users", ring.users - 1))
    return Event(cpu, fd, kernel_id, key)


def _make_ring(
    keeper: KeeperLink, recording: Recording, cpu: int, fd: OwnedFd, key: bytes, value: bytes
) -> MappedRing:
    size = recording.ring.bytes_per_cpu
    # The keeper first: the first mapper makes the ring and pays for it.
    keeper.put(key, value, fd.fileno(), size)
    backward = recording.ring.kind == "backward"
    ring = MappedRing(cpu, fd, key, size, backward, recording.ring.overwrites)
    recording.rings[cpu] = ring
    return ring


def _no_ring(
    error: OSError, keeper: KeeperLink, registry: Registry, recording: Recording
) -> KernelRefused:
    """mmap(2) refused a ring. A ring that fits leaves room for the sideband's."""
    count = len(recording.cpus)
    others = quotas.locked(registry, recording.owner.uid)
    mapped = sum(ring.bytes + mmap.PAGESIZE for ring in recording.rings.values())
    pinned = keeper.pinned() - mapped + count * (RING_BYTES + mmap.PAGESIZE)
    return refusal.of_ring(error, recording.ring.bytes_per_cpu, count, others, pinned)


def redirect(fd: OwnedFd, ring: MappedRing) -> None:
    try:
        fcntl.ioctl(fd.fileno(), Ioctl.SET_OUTPUT, ring.owner.fileno())
    except OSError as error:
        raise BrokerError(
            error.errno or errno.EINVAL,
            f"an event on CPU {ring.cpu} cannot share the CPU's ring: CPU, clock and "
            f"write_backward must agree with those of the others ({error.strerror})",
        ) from error
