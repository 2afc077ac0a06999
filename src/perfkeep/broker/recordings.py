"""What can be done with recordings: make, change, count, reopen and end them.

Works on fds that a client opened with its own rights; opens no event itself. Whatever fails
half-way leaves no fd, ring, id or name behind.

On the keeper's shelf a recording is, under its id R:

    R/                      RecordingValue, put last: without it the rest means nothing
    R/k/K/                  the Kind of event with id K
    R/r/K/                  which events of kind K left; the rings still hold records of theirs
    R/e/K/CPU/N/            one event of it, with its fd, and its ring when it owns one
    #ids                    the next id
"""

from __future__ import annotations

import errno
import fcntl
import time
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from functools import partial

import msgspec

from perfkeep.abi.perf_event import Attr, Ioctl, ReadFormat
from perfkeep.broker.link import Item, KeeperLink
from perfkeep.broker.permission import check
from perfkeep.broker.registry import Event, KindOfEvent, Recording, Registry, check_name
from perfkeep.broker.rings import MappedRing
from perfkeep.errors import BrokerError
from perfkeep.kernel import cpus, perf_fd, refusal
from perfkeep.kernel.fd import OwnedFd
from perfkeep.wire import messages
from perfkeep.wire.messages import Kind, Owner, Ring, Slot
from perfkeep.wire.socket import Peer

_IDS = b"#ids"
#: A recording remembers no more kinds of event that left it; the oldest is forgotten first.
_MOST_RETIRED = 256


class RecordingValue(msgspec.Struct):
    """What the keeper remembers of a recording for the next broker."""

    id: int
    name: str
    owner: Owner
    ring: Ring
    target: str
    created_ns: int
    mode: int
    gid: int
    enabled: bool


class EventValue(msgspec.Struct, omit_defaults=True):
    """What the keeper remembers beside an event's fd.

    `retired`: the event was removed, and stays only as the owner of a ring that others use.
    """

    kind: int
    cpu: int
    retired: bool = False


def _kind_key(recording: Recording, id: int) -> bytes:
    return b"%sk/%d/" % (recording.prefix, id)


def _retired_key(recording: Recording, id: int) -> bytes:
    return b"%sr/%d/" % (recording.prefix, id)


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


class Recordings:
    """Every operation of the interface that concerns recordings, for a peer already known."""

    def __init__(self, keeper: KeeperLink) -> None:
        self.keeper = keeper
        self.registry = Registry()

    # --- making -----------------------------------------------------------------------------

    def start(self, peer: Peer, request: messages.Start, fds: list[OwnedFd]) -> messages.Started:
        """Make the fds a recording; see messages.Start."""
        if request.name is not None:
            check_name(request.name)
            self.registry.check_free(request.name)
        events = self._check_fds(request.kinds, request.slots, fds)
        ids = self.registry.allocate(len(request.kinds))
        self.keeper.put(_IDS, b"%d" % self.registry.next_id)
        recording = Recording(
            ids[0],
            request.name or str(ids[0]),
            self._owner(peer),
            request.ring,
            request.target,
            time.time_ns(),
        )
        recording.enabled = request.enable
        with Undo() as undo:
            made = self._join(recording, dict(zip(ids, request.kinds, strict=True)), events, undo)
            undo.push(partial(self.keeper.drop, recording.prefix))
            self._remember(recording)
            self.registry.add(recording)
            undo.push(partial(self.registry.remove, recording))
            self._publish(recording, made)
        return messages.Started(recording.id, recording.name, list(ids))

    def add(self, peer: Peer, request: messages.Add, fds: list[OwnedFd]) -> messages.Started:
        """Let the fds join a recording that runs."""
        recording = self.registry.get(request.name)
        check(peer.uid, recording.owner.uid, recording.name, "add to")
        events = self._check_fds(request.kinds, request.slots, fds)
        ids = self.registry.allocate(len(request.kinds))
        self.keeper.put(_IDS, b"%d" % self.registry.next_id)
        with Undo() as undo:
            made = self._join(recording, dict(zip(ids, request.kinds, strict=True)), events, undo)
            undo.push(partial(self._unpublish, recording, made))
            self._publish(recording, made)
        return messages.Started(recording.id, recording.name, list(ids))

    def _publish(self, recording: Recording, kinds: list[KindOfEvent]) -> None:
        """Let the kinds be found, and let them run if the recording does."""
        for kind in kinds:
            self.registry.add_kind(recording, kind)
        for kind in kinds:
            for event in kind.events:
                if recording.enabled:
                    fcntl.ioctl(event.fd.fileno(), Ioctl.ENABLE, 0)

    def _unpublish(self, recording: Recording, kinds: list[KindOfEvent]) -> None:
        for kind in kinds:
            if kind.id in recording.kinds:
                self.registry.remove_kind(recording, kind)

    def _check_fds(
        self, kinds: list[Kind], slots: list[Slot], fds: list[OwnedFd]
    ) -> list[tuple[Slot, OwnedFd, int]]:
        """The fds with their kernel ids, if each can become persistent.

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
            if not perf_fd.hung_up(fd.fileno()):
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
    ) -> list[KindOfEvent]:
        """Give the events their rings, and put them on the keeper's shelf."""
        made = [KindOfEvent(id, kind) for id, kind in kinds.items()]
        for kind in made:
            key = _kind_key(recording, kind.id)
            undo.push(partial(self.keeper.drop, key))
            self.keeper.put(key, msgspec.json.encode(kind.kind))
        for slot, fd, kernel_id in events:
            kind = made[slot.kind]
            key = b"%se/%d/%d/%d/" % (recording.prefix, kind.id, slot.cpu, len(kind.events))
            undo.push(partial(self.keeper.drop, key))
            value = msgspec.json.encode(EventValue(kind.id, slot.cpu))
            ring = recording.rings.get(slot.cpu)
            if ring is None:
                undo.push(partial(recording.rings.pop, slot.cpu, None))
                ring = self._make_ring(recording, slot.cpu, fd, key, value)
            else:
                self._redirect(fd, ring)
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

    def _remember(self, recording: Recording) -> None:
        value = RecordingValue(
            **{name: getattr(recording, name) for name in RecordingValue.__struct_fields__}
        )
        self.keeper.put(recording.prefix, msgspec.json.encode(value))

    # --- changing and ending ----------------------------------------------------------------

    def switch(self, peer: Peer, name: str, on: bool) -> None:
        """Enable or disable every event."""
        recording = self.registry.get(name)
        check(peer.uid, recording.owner.uid, name, "enable" if on else "disable")
        for event in recording.events():
            fcntl.ioctl(event.fd.fileno(), Ioctl.ENABLE if on else Ioctl.DISABLE, 0)
        recording.enabled = on
        self._remember(recording)

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
        self._drop_if_empty(recording)

    def claim(self, peer: Peer, name: str) -> None:
        """End a recording: its events die with their last fd."""
        recording = self.registry.get(name)
        check(peer.uid, recording.owner.uid, name, "claim")
        self.keeper.drop(recording.prefix)
        self.registry.remove(recording)

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
        self._drop_if_empty(recording)

    def _leave(self, recording: Recording, kind: KindOfEvent, event: Event) -> None:
        """One event goes. One that owns a ring which others use stays behind, switched off."""
        ring = recording.rings[event.cpu]
        ring.users -= 1
        if ring.users == 0:
            del recording.rings[event.cpu]
            self.keeper.drop(ring.key)
        if ring.key != event.key:
            self.keeper.drop(event.key)
        elif ring.users:
            fcntl.ioctl(event.fd.fileno(), Ioctl.DISABLE, 0)
            value = EventValue(kind.id, event.cpu, retired=True)
            self.keeper.put(event.key, msgspec.json.encode(value))
        self._retire(recording, kind, event)
        self.registry.remove_event(recording, kind, event)
        if kind.id not in recording.kinds:
            self.keeper.drop(_kind_key(recording, kind.id))

    def _retire(self, recording: Recording, kind: KindOfEvent, event: Event) -> None:
        """Remember whose records these were, for snapshots to come."""
        gone = recording.retired.setdefault(
            kind.id, messages.KindInSnapshot(kind.id, kind.kind, {})
        )
        gone.kernel_ids.setdefault(event.cpu, []).append(event.kernel_id)
        self.keeper.put(_retired_key(recording, kind.id), msgspec.json.encode(gone))
        if len(recording.retired) > _MOST_RETIRED:
            oldest = next(iter(recording.retired))
            del recording.retired[oldest]
            self.keeper.drop(_retired_key(recording, oldest))

    def _drop_if_empty(self, recording: Recording) -> None:
        if not recording.kinds:
            self.keeper.drop(recording.prefix)

    # --- looking ----------------------------------------------------------------------------

    def info(self, recording: Recording) -> messages.RecordingInfo:
        """One recording as lists show it."""
        return messages.RecordingInfo(
            recording.name,
            recording.id,
            self._state(recording),
            recording.created_ns,
            recording.owner,
            recording.mode,
            recording.gid,
            recording.ring,
            recording.target,
            [
                messages.EventInfo(kind.id, kind.kind.event, kind.cpus)
                for kind in recording.kinds.values()
            ],
        )

    def _state(self, recording: Recording) -> messages.State:
        # With a ring an event hangs up only when its task is gone; ask until one lives.
        if all(perf_fd.hung_up(event.fd.fileno()) for event in recording.events()):
            return "ended"
        return "running" if self._runs(recording) else "disabled"

    def _runs(self, recording: Recording) -> bool:
        """Ask the kernel: whoever has an event's fd may have switched it without telling us.

        While an event of a CPU is enabled its time runs, so two readings differ. The time of a
        task's event runs only while the task does; there we know what we were told.
        """
        kind = next(iter(recording.kinds.values()))
        read_format = Attr.unpack(kind.kind.attr).read_format
        if not read_format & ReadFormat.TOTAL_TIME_ENABLED or not recording.of_cpus:
            return recording.enabled
        fd = kind.events[0].fd.fileno()
        first, second = perf_fd.read(fd, read_format), perf_fd.read(fd, read_format)
        return second.time_enabled_ns > first.time_enabled_ns

    def visible(self, peer: Peer) -> messages.Recordings:
        """What this peer may see, oldest first."""
        return messages.Recordings(
            [self.info(one) for one in self.registry if peer.uid in (0, one.owner.uid)]
        )

    def show(self, peer: Peer, name: str) -> messages.RecordingInfo:
        recording = self.registry.get(name)
        check(peer.uid, recording.owner.uid, name, "look at")
        return self.info(recording)

    def stat(self, peer: Peer, name: str) -> messages.Stat:
        """The counts of every event, summed per CPU."""
        recording = self.registry.get(name)
        check(peer.uid, recording.owner.uid, name, "read")
        events = []
        for kind in recording.kinds.values():
            read_format = Attr.unpack(kind.kind.attr).read_format
            sums: dict[int, list[int]] = {}
            for event in kind.events:
                got = perf_fd.read(event.fd.fileno(), read_format)
                total = sums.setdefault(event.cpu, [0, 0, 0, 0])
                parts = (got.value, got.time_enabled_ns, got.time_running_ns, got.lost)
                for place, part in enumerate(parts):
                    total[place] += part
            counts = [messages.Counts(cpu, *total) for cpu, total in sorted(sums.items())]
            events.append(messages.EventCounts(kind.id, kind.kind.event, counts))
        return messages.Stat(name, events)

    def reopen(self, peer: Peer, id: int, cpu: int) -> tuple[messages.Reopened, list[OwnedFd]]:
        """The fd of one event; and its ring's owner when that is another event.

        Raises:
            BrokerError: EINVAL bad CPU or an event of a process · EACCES · ENOENT.
        """
        if cpu < 0 or cpu not in cpus.possible():
            raise BrokerError(errno.EINVAL, f"there is no CPU {cpu} on this machine")
        recording, kind = self.registry.kind(id)
        check(peer.uid, recording.owner.uid, recording.name, "reopen")
        events = [event for event in kind.events if event.cpu == cpu]
        if not events:
            raise BrokerError(
                errno.ENOENT,
                f"event {id} does not exist on CPU {cpu}; it lives on "
                f"{cpus.format_list(kind.cpus)}",
            )
        if len(events) > 1:
            raise BrokerError(
                errno.EINVAL,
                f"event {id} is {len(events)} events on CPU {cpu}, one for each thread of a "
                f"process; read them with: perfkeep stat {recording.name}",
            )
        fds = [events[0].fd]
        ring = recording.rings[cpu]
        if ring.key != events[0].key:
            fds.append(ring.owner)
        return messages.Reopened(kind.kind, recording.ring, len(fds)), fds

    def begin_snapshot(self, peer: Peer, name: str) -> tuple[messages.Snapshot, list[MappedRing]]:
        """What a snapshot will hold, and the rings to copy, which stay though it be claimed."""
        recording = self.registry.get(name)
        check(peer.uid, recording.owner.uid, name, "take a snapshot of")
        kinds = {
            id: messages.KindInSnapshot(id, gone.kind, deepcopy(gone.kernel_ids))
            for id, gone in recording.retired.items()
        }
        for kind in recording.kinds.values():
            one = kinds.setdefault(kind.id, messages.KindInSnapshot(kind.id, kind.kind, {}))
            for event in kind.events:
                one.kernel_ids.setdefault(event.cpu, []).append(event.kernel_id)
        rings = [ring for _, ring in sorted(recording.rings.items())]
        found = [kind for _, kind in sorted(kinds.items())]
        return messages.Snapshot(self.info(recording), found, [r.cpu for r in rings]), rings

    # --- after a broker died ----------------------------------------------------------------

    def recover(self) -> None:
        """Rebuild the registry from the keeper's shelf; drop what was never finished."""
        items = {item.key: item for item in self.keeper.items()}
        if _IDS in items:
            self.registry.next_id = int(items.pop(_IDS).value)
        metas = [item for key, item in items.items() if key.count(b"/") == 1]
        for meta in metas:
            value = msgspec.json.decode(meta.value, type=RecordingValue)
            recording = Recording(
                value.id, value.name, value.owner, value.ring, value.target, value.created_ns
            )
            recording.mode, recording.gid = value.mode, value.gid
            recording.enabled = value.enabled
            self._recover(recording, items)
            if recording.kinds:
                self.registry.add(recording)
        known = tuple(recording.prefix for recording in self.registry)
        for key in items:
            if not key.startswith(known):
                self.keeper.drop(key)

    def _recover(self, recording: Recording, items: dict[bytes, Item]) -> None:
        mine = {key: item for key, item in items.items() if key.startswith(recording.prefix)}
        for key, item in mine.items():
            if key.startswith(recording.prefix + b"k/"):
                id = int(key.split(b"/")[2])
                recording.kinds[id] = KindOfEvent(id, msgspec.json.decode(item.value, type=Kind))
            elif key.startswith(recording.prefix + b"r/"):
                gone = msgspec.json.decode(item.value, type=messages.KindInSnapshot)
                recording.retired[gone.id] = gone
        # Owners of rings first, so that every event finds its ring.
        for key, item in sorted(mine.items(), key=lambda pair: -pair[1].ring_bytes):
            if item.fd is None:
                continue
            value = msgspec.json.decode(item.value, type=EventValue)
            if item.ring_bytes:
                recording.rings[value.cpu] = MappedRing(
                    value.cpu, item.fd, key, item.ring_bytes, recording.ring.kind == "backward"
                )
            if value.retired or value.kind not in recording.kinds:
                continue
            kernel_id = perf_fd.event_id(item.fd.fileno())
            event = Event(value.cpu, item.fd, kernel_id, key)
            recording.kinds[value.kind].events.append(event)
            recording.rings[value.cpu].users += 1

    def hand_over(self, keeper: KeeperLink) -> None:
        """Give everything to a new keeper; the old one died."""
        self.keeper = keeper
        keeper.put(_IDS, b"%d" % self.registry.next_id)
        for recording in self.registry:
            for cpu, ring in recording.rings.items():
                # Overwritten below when the owner is still an event of its own.
                value = EventValue(0, cpu, retired=True)
                keeper.put(ring.key, msgspec.json.encode(value), ring.owner.fileno(), ring.bytes)
            for gone in recording.retired.values():
                keeper.put(_retired_key(recording, gone.id), msgspec.json.encode(gone))
            for kind in recording.kinds.values():
                keeper.put(_kind_key(recording, kind.id), msgspec.json.encode(kind.kind))
                for event in kind.events:
                    value = EventValue(kind.id, event.cpu)
                    owns = recording.rings[event.cpu].key == event.key
                    fd = -1 if owns else event.fd.fileno()
                    keeper.put(event.key, msgspec.json.encode(value), fd)
            self._remember(recording)
