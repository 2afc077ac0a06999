"""What can be done to recordings: make, change and end them.

Works on fds that a client opened with its own rights; opens no event itself. Whatever fails
half-way leaves no fd, ring, id or name behind.
"""

from __future__ import annotations

import errno
import fcntl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import msgspec

from perfkeep.abi.perf_event import Attr, Flag, Ioctl
from perfkeep.broker.link import KeeperLink
from perfkeep.broker.permission import check
from perfkeep.broker.registry import Event, KindOfEvent, Recording, Registry, check_name
from perfkeep.broker.remembered import (
    IDS,
    EventValue,
    event_key,
    kind_key,
    remember,
    retired_key,
)
from perfkeep.broker.rings import MappedRing
from perfkeep.broker.sysfs import SysfsView
from perfkeep.errors import BrokerError
from perfkeep.kernel import cpus, perf_fd, refusal
from perfkeep.kernel.fd import OwnedFd
from perfkeep.wire import messages
from perfkeep.wire.messages import Kind, Owner, Slot
from perfkeep.wire.socket import Peer

#: A recording remembers no more kinds of event that left it; the oldest is forgotten first.
_MOST_RETIRED = 256


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


def _detach(fd: OwnedFd) -> None:
    """Undo SET_OUTPUT; an event that someone has mapped (before Linux 6.17) keeps its ring."""
    from perfkeep.kernel.syscalls import detach_output  # few need it

    with suppress(OSError):
        detach_output(fd.fileno())


class Recordings:
    """Every operation of the interface that concerns recordings, for a peer already known."""

    def __init__(self, keeper: KeeperLink, view: SysfsView) -> None:
        self.keeper = keeper
        self.view = view
        self.registry = Registry()
        #: What has left, until `bury` lets go of it.
        self.graves: list[object] = []

    def bury(self) -> None:
        """Close what has left, in a thread: the kernel takes 40 ms to close the last user of a
        tracepoint, and nobody should have to wait for a recording of hundreds of them.
        """
        if not self.graves:
            return
        graves, self.graves = self.graves, []
        try:
            threading.Thread(target=graves.clear, daemon=True).start()
        except RuntimeError:  # no thread to be had; then everybody waits
            graves.clear()

    # --- making -----------------------------------------------------------------------------

    def start(self, peer: Peer, request: messages.Start, fds: list[OwnedFd]) -> messages.Started:
        """Make the fds a recording; see messages.Start."""
        if request.name is not None:
            check_name(request.name)
            self.registry.check_free(request.name)
        events = self._check_fds(request.kinds, request.slots, fds, request.adopted)
        ids = self.registry.allocate(len(request.kinds))
        self.keeper.put(IDS, b"%d" % self.registry.next_id)
        recording = Recording(
            ids[0],
            request.name or str(ids[0]),
            self._owner(peer),
            request.ring,
            request.target,
            time.time_ns(),
        )
        # What nobody may ask the kernel is believed: an event starts as its attr says, and one
        # that is adopted has been switched on since.
        opened_disabled = Attr.unpack(request.kinds[0].attr).flags & Flag.DISABLED
        as_it_is = request.adopted or not opened_disabled
        recording.enabled = as_it_is if request.enable is None else request.enable
        with Undo() as undo:
            kinds = dict(zip(ids, request.kinds, strict=True))
            made = self._join(recording, kinds, events, undo, request.adopted)
            self.registry.add(recording)
            undo.push(partial(self.registry.remove, recording))
            self._publish(recording, made, bool(request.enable))
            undo.push(partial(self.keeper.drop, recording.prefix))
            remember(self.keeper, recording)
        self._show(recording)
        return messages.Started(recording.id, recording.name, list(ids))

    def add(self, peer: Peer, request: messages.Add, fds: list[OwnedFd]) -> messages.Started:
        """Let the fds join a recording that runs."""
        recording = self.registry.get(request.name)
        check(peer.uid, recording.owner.uid, recording.name, "add to")
        events = self._check_fds(request.kinds, request.slots, fds)
        ids = self.registry.allocate(len(request.kinds))
        self.keeper.put(IDS, b"%d" % self.registry.next_id)
        with Undo() as undo:
            made = self._join(recording, dict(zip(ids, request.kinds, strict=True)), events, undo)
            undo.push(partial(self._unpublish, recording, made))
            self._publish(recording, made, recording.enabled)
            remember(self.keeper, recording)
        self._show(recording)
        return messages.Started(recording.id, recording.name, list(ids))

    def _show(self, recording: Recording) -> None:
        """What is in sysfs is a view: that it cannot be written must not end a recording."""
        try:
            try:
                self.view.update(recording)
            except FileNotFoundError:  # someone deleted the tree
                self.view.show_all(self.registry)
        except OSError as error:
            print(f"perfkeep-broker: the sysfs view is out of date: {error}", flush=True)

    def _publish(self, recording: Recording, kinds: list[KindOfEvent], enable: bool) -> None:
        """Let the kinds be found, and let them run."""
        for kind in kinds:
            self.registry.add_kind(recording, kind)
        for kind in kinds:
            for event in kind.events:
                if enable:
                    fcntl.ioctl(event.fd.fileno(), Ioctl.ENABLE, 0)

    def _unpublish(self, recording: Recording, kinds: list[KindOfEvent]) -> None:
        for kind in kinds:
            if kind.id in recording.kinds:
                self.registry.remove_kind(recording, kind)

    def _check_fds(
        self, kinds: list[Kind], slots: list[Slot], fds: list[OwnedFd], adopted: bool = False
    ) -> list[tuple[Slot, OwnedFd, int]]:
        """The fds with their kernel ids, if each can become persistent.

        Args:
            adopted: they must have rings, instead of none.

        Raises:
            BrokerError: with the errno that the contract names for UNCLAIM.
        """
        if not kinds or len(slots) != len(fds):
            raise BrokerError(
                errno.EINVAL, f"{len(slots)} slots were named and {len(fds)} fds staged"
            )
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
                    "an event that follows a task on every CPU cannot persist; open it with a cpu",
                )
            if self.registry.by_kernel_id(kernel_id) or kernel_id in seen:
                raise BrokerError(errno.EEXIST, "this event is persistent already")
            if perf_fd.hung_up(fd.fileno()):
                if adopted:
                    raise BrokerError(errno.EINVAL, "this event has no ring that could be adopted")
            elif not adopted:
                raise BrokerError(
                    errno.EBUSY, "this event has a ring already; unmap it before unclaim"
                )
            if slot.cpu not in online:
                raise BrokerError(errno.ENOENT, f"this event is dying: CPU {slot.cpu} is offline")
            seen.add(kernel_id)
            events.append((slot, fd, kernel_id))
        return events

    def _join(
        self,
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
            undo.push(partial(self.keeper.drop, key))
            self.keeper.put(key, msgspec.json.encode(kind.kind))
        for slot, fd, kernel_id in events:
            kind = made[slot.kind]
            key = event_key(recording, kind, slot.cpu)
            undo.push(partial(self.keeper.drop, key))
            value = msgspec.json.encode(EventValue(kind.id, slot.cpu))
            ring = recording.rings.get(slot.cpu)
            if ring is None:
                undo.push(partial(recording.rings.pop, slot.cpu, None))
                ring = self._make_ring(recording, slot.cpu, fd, key, value)
            else:
                if not adopted:
                    self._redirect(fd, ring)
                    undo.push(partial(_detach, fd))
                self.keeper.put(key, value, fd.fileno())
            ring.users += 1
            undo.push(partial(setattr, ring, "users", ring.users - 1))
            kind.events.append(Event(slot.cpu, fd, kernel_id, key))
        return made

    def _make_ring(
        self, recording: Recording, cpu: int, fd: OwnedFd, key: bytes, value: bytes
    ) -> MappedRing:
        size = recording.ring.bytes_per_cpu
        try:
            # The keeper first: the first mapper makes the ring and pays for it.
            self.keeper.put(key, value, fd.fileno(), size)
            ring = MappedRing(cpu, fd, key, size, recording.ring.kind == "backward")
        except OSError as error:
            raise refusal.of_ring(error, size) from error
        recording.rings[cpu] = ring
        return ring

    def _redirect(self, fd: OwnedFd, ring: MappedRing) -> None:
        try:
            fcntl.ioctl(fd.fileno(), Ioctl.SET_OUTPUT, ring.owner.fileno())
        except OSError as error:
            raise BrokerError(
                error.errno or errno.EINVAL,
                f"an event on CPU {ring.cpu} cannot share the CPU's ring: CPU, clock and "
                f"write_backward must agree with those of the others ({error.strerror})",
            ) from error

    def _owner(self, peer: Peer) -> Owner:
        try:
            with open(f"/proc/{peer.pid}/cmdline", "rb") as file:
                command = (
                    file.read(4096).rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
                )
        except OSError:
            command = ""
        return Owner(peer.uid, peer.gid, peer.pid, command)

    # --- changing and ending ----------------------------------------------------------------

    def switch(self, peer: Peer, name: str, on: bool) -> None:
        """Enable or disable every event."""
        recording = self.registry.get(name)
        check(peer.uid, recording.owner.uid, name, "enable" if on else "disable")
        for event in recording.events():
            fcntl.ioctl(event.fd.fileno(), Ioctl.ENABLE if on else Ioctl.DISABLE, 0)
        recording.enabled = on
        remember(self.keeper, recording)

    def remove(self, peer: Peer, name: str, ids: list[int]) -> None:
        """Take kinds of event out; the last kinds take the recording with them."""
        recording = self.registry.get(name)
        check(peer.uid, recording.owner.uid, name, "remove from")
        missing = [id for id in ids if id not in recording.kinds]
        if missing:
            raise BrokerError(errno.ENOENT, f"{name!r} has no event with id {missing[0]}")
        for id in ids:
            kind = recording.kinds[id]
            for event in list(kind.events):
                self._leave(recording, kind, event)
        self._settle(recording)

    def claim(self, peer: Peer, name: str) -> None:
        """End a recording: its events die with their last fd."""
        recording = self.registry.get(name)
        check(peer.uid, recording.owner.uid, name, "claim")
        self.keeper.drop(recording.prefix)
        self.graves += [*recording.events(), *recording.rings.values()]
        self.registry.remove(recording)
        self._show(recording)

    def claim_event(self, peer: Peer, fd: OwnedFd) -> None:
        """PERF_EVENT_IOC_CLAIM: take the event behind this fd out of the registry.

        Raises:
            BrokerError: EINVAL: not persistent.
        """
        found = self.registry.by_kernel_id(perf_fd.check(fd.fileno()))
        if found is None:
            raise BrokerError(errno.EINVAL, "this event is not persistent")
        recording, kind, event = found
        check(peer.uid, recording.owner.uid, recording.name, "claim")
        self._leave(recording, kind, event)
        self._settle(recording)

    def _leave(self, recording: Recording, kind: KindOfEvent, event: Event) -> None:
        """One event goes. One that owns a ring which others use stays behind, switched off."""
        ring = recording.rings[event.cpu]
        last, owner = ring.users == 1, ring.key == event.key
        # The keeper first: if it dies now, nothing has changed here, and the next one is given
        # the event again.
        self._retire(recording, kind, event)
        if not owner:
            self.keeper.drop(event.key)
        elif not last:
            value = EventValue(kind.id, event.cpu, retired=True)
            self.keeper.put(event.key, msgspec.json.encode(value))
        if last:
            self.keeper.drop(ring.key)
            del recording.rings[event.cpu]
            self.graves.append(ring)
        self.graves.append(event)
        ring.users -= 1
        if not owner:
            # Whoever else has it open must not go on writing into the recording's ring.
            _detach(event.fd)
        elif not last:
            fcntl.ioctl(event.fd.fileno(), Ioctl.DISABLE, 0)
        self.registry.remove_event(recording, kind, event)
        if kind.id not in recording.kinds:
            self.keeper.drop(kind_key(recording, kind.id))

    def _retire(self, recording: Recording, kind: KindOfEvent, event: Event) -> None:
        """Remember whose records these were, for snapshots to come."""
        known = recording.retired.get(kind.id)
        ids = {cpu: list(some) for cpu, some in known.kernel_ids.items()} if known else {}
        ids.setdefault(event.cpu, []).append(event.kernel_id)
        gone = messages.KindInSnapshot(kind.id, kind.kind, ids)
        self.keeper.put(retired_key(recording, kind.id), msgspec.json.encode(gone))
        recording.retired[kind.id] = gone
        if len(recording.retired) > _MOST_RETIRED:
            oldest = next(iter(recording.retired))
            del recording.retired[oldest]
            self.keeper.drop(retired_key(recording, oldest))

    def _settle(self, recording: Recording) -> None:
        """After events have left: have the keeper remember what stays, if anything does."""
        if recording.kinds:
            remember(self.keeper, recording)
        else:
            self.keeper.drop(recording.prefix)
        self._show(recording)
