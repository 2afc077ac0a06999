"""What can be done to recordings: make, change and end them.

Works on fds that a client opened with its own rights; opens no event itself. Whatever fails
half-way leaves no fd, ring, id or name behind.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import msgspec

from perfkeep.abi.perf_event import Attr, Flag, Ioctl
from perfkeep.broker import quotas
from perfkeep.broker.joining import Undo, check_fds, join_all
from perfkeep.broker.leaving import close_in_thread, leave, unmap
from perfkeep.broker.link import KeeperLink
from perfkeep.broker.log import say
from perfkeep.broker.permission import (
    Level,
    check,
    check_access,
    check_pids,
    check_start,
    find,
)
from perfkeep.broker.policy import Policy
from perfkeep.broker.registry import KindOfEvent, Recording, Registry, check_name
from perfkeep.broker.remembered import (
    IDS,
    kind_key,
    remember,
    spill_key,
    value_of,
)
from perfkeep.broker.sideband import Sideband, Wakeups
from perfkeep.broker.spill import Job, Spiller, spill_files
from perfkeep.broker.state import State
from perfkeep.broker.sysfs import SysfsView
from perfkeep.broker.views import Views
from perfkeep.errors import BrokerError
from perfkeep.kernel import perf_fd
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.pids import pid_namespace
from perfkeep.kernel.sysctl import boot_id
from perfkeep.wire import messages
from perfkeep.wire.messages import Owner
from perfkeep.wire.socket import Peer
from perfkeep.wire.spill import META, VERSION, Meta


def expiry(ttl_ns: int | None) -> int | None:
    """When, by CLOCK_BOOTTIME, which no one can set and which goes on while the machine sleeps."""
    return None if ttl_ns is None else time.clock_gettime_ns(time.CLOCK_BOOTTIME) + ttl_ns


def _set_access(recording: Recording, access: messages.Access) -> None:
    if access.uid is not None and access.uid != recording.owner.uid:
        recording.owner = msgspec.structs.replace(
            recording.owner, uid=access.uid, gid=_group_of(access.uid)
        )
        recording.gid = recording.owner.gid
    if access.gid is not None:
        recording.gid = access.gid
    if access.mode is not None:
        recording.mode = access.mode


def _group_of(uid: int) -> int:
    """The group of a user, as their files would get it."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid


class Recordings:
    """Every operation of the interface that concerns recordings, for a peer already known."""

    def __init__(self, keeper: KeeperLink, view: SysfsView, state: State, policy: Policy) -> None:
        self.keeper = keeper
        self.view = view
        self.state = state
        self.policy = policy
        self.registry = Registry()
        self.spiller = Spiller()
        self.wakeups = Wakeups()
        self.views = Views(self.registry, self.spiller.jobs)
        #: When the next recording expires, by CLOCK_BOOTTIME.
        self.next_expiry: int | None = None
        #: What has left, until `bury` lets go of it.
        self.graves: list[object] = []

    def bury(self) -> None:
        """Let go of what has left."""
        unmap(self.keeper)
        if self.graves:
            graves, self.graves = self.graves, []
            close_in_thread(graves)

    # --- making -----------------------------------------------------------------------------

    def start(self, peer: Peer, request: messages.Start, fds: list[OwnedFd]) -> messages.Started:
        """Make the fds a recording; see messages.Start."""
        check_start(peer, os.geteuid(), self.policy)
        check_pids(request.target, pid_namespace())
        if request.name is not None:
            check_name(request.name)
            self.registry.check_free(request.name)
        owner = self._owner(peer, request.access)
        check_access(peer, peer.uid, request.access, self.policy)
        on = sorted({slot.cpu for slot in request.slots})
        files: dict[int, OwnedFd] = {}
        if request.spill is not None:
            files = spill_files(peer, fds, on, request.ring.bytes_per_cpu)
            fds = fds[: -len(files)]
        events = check_fds(self.registry, request.kinds, request.slots, fds, request.adopted)
        rings = len(on) * request.ring.bytes_per_cpu
        quotas.check(self.registry, peer.uid, self.policy, 1, len(events), rings)
        ids = self.registry.allocate(len(request.kinds))
        self.keeper.put(IDS, b"%d" % self.registry.next_id)
        recording = Recording(
            ids[0],
            request.name or str(ids[0]),
            owner,
            request.ring,
            request.target,
            time.time_ns(),
        )
        _set_access(recording, request.access)
        recording.cpus, recording.every_cpu = on, request.every_cpu
        recording.expires_ns = expiry(request.ttl_ns)
        recording.spill = request.spill
        # What nobody may ask the kernel is believed: an event starts as its attr says, and one
        # that is adopted has been switched on since.
        opened_disabled = Attr.unpack(request.kinds[0].attr).flags & Flag.DISABLED
        as_it_is = request.adopted or not opened_disabled
        recording.enabled = as_it_is if request.enable is None else request.enable
        with Undo() as undo:
            kinds = dict(zip(ids, request.kinds, strict=True))
            made = join_all(
                self.keeper, self.registry, recording, kinds, events, undo, request.adopted
            )
            self.registry.add(recording)
            undo.push(partial(self.registry.remove, recording))
            self._publish(recording, made, bool(request.enable))
            undo.push(partial(self.keeper.drop, recording.prefix))
            self.take_files(recording, files)
            undo.push(partial(self.state.forget, recording.name))
            self.remember(recording)
        self.show(recording)
        return messages.Started(recording.id, recording.name, list(ids))

    def remember(self, recording: Recording) -> None:
        """Have the disk and the keeper know a recording as it is now.

        Raises:
            BrokerError: ENOSPC, EROFS, …: the disk does not; nothing has changed there.
        """
        self.state.save(recording, self.registry)
        remember(self.keeper, recording)
        self.schedule()

    def schedule(self) -> None:
        """Find out when the next recording expires."""
        self.next_expiry = min(
            (one.expires_ns for one in self.registry if one.expires_ns is not None), default=None
        )

    def add(self, peer: Peer, request: messages.Add, fds: list[OwnedFd]) -> messages.Started:
        """Let the fds join a recording that runs."""
        recording = find(self.registry, peer, request.name, Level.OWN, "add to")
        events = check_fds(self.registry, request.kinds, request.slots, fds)
        new = {slot.cpu for slot in request.slots} - recording.rings.keys()
        rings = len(new) * recording.ring.bytes_per_cpu
        quotas.check(self.registry, recording.owner.uid, self.policy, 0, len(events), rings)
        ids = self.registry.allocate(len(request.kinds))
        self.keeper.put(IDS, b"%d" % self.registry.next_id)
        if recording.spill is not None:
            longest = max(recording.spill.longest, request.longest)
            recording.spill = msgspec.structs.replace(recording.spill, longest=longest)
        with Undo() as undo:
            undo.push(partial(self.state.save, recording, self.registry))  # once it is as it was
            made = join_all(
                self.keeper,
                self.registry,
                recording,
                dict(zip(ids, request.kinds, strict=True)),
                events,
                undo,
            )
            undo.push(partial(self._unpublish, recording, made))
            self._publish(recording, made, recording.enabled)
            self.remember(recording)
        self.show(recording)
        return messages.Started(recording.id, recording.name, list(ids))

    def add_sideband(
        self, recording: Recording, request: messages.AddSideband, fds: list[OwnedFd]
    ) -> None:
        """Have the kernel tell of processes beside this recording."""
        sideband = recording.sideband or Sideband(recording.prefix, request.kind)
        self.wakeups.forget(sideband)
        locked = quotas.locked(self.registry, recording.owner.uid)
        try:
            sideband.add(self.keeper, request.cpus, fds, locked)
            if recording.sideband is None:
                recording.sideband, recording.sideband_kind = sideband, request.kind
                self.remember(recording)
        finally:
            self.wakeups.watch(sideband)
        self.spill(recording)

    def read_sidebands(self) -> None:
        """Take up what the kernel told; called when it woke us."""
        for sideband in self.wakeups.ready():
            sideband.read(self.keeper)

    def show(self, recording: Recording) -> None:
        """Have sysfs and the copy on disk follow a change. That they cannot is no reason to end a
        recording.
        """
        self.spill(recording)
        try:
            try:
                self.view.update(recording)
            except FileNotFoundError:  # someone deleted the tree
                self.view.show_all(self.registry)
        except OSError as error:
            say(f"the sysfs view is out of date: {error}")

    def take_files(self, recording: Recording, files: dict[int, OwnedFd]) -> None:
        """Have the keeper hold the files that the recording is spilled to."""
        for cpu, file in files.items():
            self.keeper.put(spill_key(recording, cpu), b"", file.fileno())
        recording.spill_files |= files

    def spill(self, recording: Recording) -> None:
        """Have the copy on disk, if there is one, say what the recording is now."""
        if recording.spill is None or META not in recording.spill_files or not recording.kinds:
            self.spiller.drop(recording.id)
            return
        rings = list(recording.rings.values())
        job = self.spiller.jobs.get(recording.id)
        sideband = recording.sideband
        if job is None or not job.covers(rings, sideband):
            spill = recording.spill
            job = Job(spill.every_ns, spill.longest, recording.spill_files, rings, sideband)
        info, kinds = self.views.info(recording), self.views.kinds(recording)
        event = sideband.event() if sideband is not None else None
        job.meta = Meta(VERSION, boot_id(), info, kinds, event)
        self.spiller.put(recording.id, job)

    def _publish(self, recording: Recording, kinds: list[KindOfEvent], enable: bool) -> None:
        """Let the kinds be found, and let them run."""
        for kind in kinds:
            self.registry.add_kind(recording, kind)
        for event in [event for kind in kinds if enable for event in kind.events]:
            fcntl.ioctl(event.fd.fileno(), Ioctl.ENABLE, 0)

    def _unpublish(self, recording: Recording, kinds: list[KindOfEvent]) -> None:
        for kind in kinds:
            if kind.id in recording.kinds:
                self.registry.remove_kind(recording, kind)

    def take_up(self, recording: Recording) -> None:
        """A recording that only the disk remembered, whose events are still to be opened."""
        self.registry.add(recording)
        self.keeper.put(IDS, b"%d" % self.registry.next_id)
        for kind in recording.kinds.values():
            self.keeper.put(kind_key(recording, kind.id), msgspec.json.encode(kind.kind))
        remember(self.keeper, recording)

    def _owner(self, peer: Peer, access: messages.Access) -> Owner:
        try:
            with open(f"/proc/{peer.pid}/cmdline", "rb") as file:
                command = (
                    file.read(4096).rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
                )
        except OSError:
            command = ""
        uid = peer.uid if access.uid is None else access.uid
        gid = peer.gid if uid == peer.uid else _group_of(uid)
        return Owner(uid, gid, peer.pid, command)

    # --- changing and ending ----------------------------------------------------------------

    def switch(self, peer: Peer, name: str, on: bool) -> None:
        """Enable or disable every event."""
        recording = find(self.registry, peer, name, Level.CONTROL, "enable" if on else "disable")
        with self.changing(recording):
            recording.enabled = on
        if on:
            for ring in recording.rings.values():  # perf pauses those of --overwrite when it ends
                fcntl.ioctl(ring.owner.fileno(), Ioctl.PAUSE_OUTPUT, 0)
        for event in recording.events():
            fcntl.ioctl(event.fd.fileno(), Ioctl.ENABLE if on else Ioctl.DISABLE, 0)

    def set_access(self, peer: Peer, name: str, access: messages.Access) -> None:
        """chmod and chown."""
        recording = find(self.registry, peer, name, Level.OWN, "change the mode of")
        check_access(peer, recording.owner.uid, access, self.policy)
        if access.uid is not None:
            mine = quotas.used_by(recording)
            quotas.check(self.registry, peer.uid, self.policy, *mine)
        with self.changing(recording):
            _set_access(recording, access)
        self.show(recording)

    def expire(self, peer: Peer, name: str, ttl_ns: int | None) -> None:
        """Let it end by itself after this long."""
        recording = find(self.registry, peer, name, Level.OWN, "end")
        with self.changing(recording):
            recording.expires_ns = expiry(ttl_ns)

    @contextmanager
    def changing(self, recording: Recording) -> Iterator[None]:
        """What changes inside is remembered; if it cannot be, nothing has changed."""
        before = value_of(recording)
        try:
            yield
            self.remember(recording)
        except BaseException:
            before.restore(recording)
            raise

    def remove(self, peer: Peer, name: str, ids: list[int]) -> None:
        """Take kinds of event out; the last kinds take the recording with them."""
        recording = find(self.registry, peer, name, Level.OWN, "remove from")
        missing = [id for id in ids if id not in recording.kinds]
        if missing:
            raise BrokerError(errno.ENOENT, f"{name!r} has no event with id {missing[0]}")
        for id in ids:
            kind = recording.kinds[id]
            for event in list(kind.events):
                leave(self.keeper, self.registry, recording, kind, event)
                self.graves.append(event)
        self._settle(recording)

    def claim(self, peer: Peer, name: str) -> None:
        """End a recording: its events die with their last fd."""
        self.end(find(self.registry, peer, name, Level.OWN, "claim"))

    def end(self, recording: Recording) -> None:
        """A recording is over."""
        self.keeper.drop(recording.prefix)
        self.state.forget(recording.name)
        self.spiller.drop(recording.id)
        self._end_sideband(recording)
        self.graves += recording.events()
        self.registry.remove(recording)
        self.show(recording)
        # At once: the next recording may need the memory that they lock.
        recording.rings.clear()

    def _end_sideband(self, recording: Recording) -> None:
        if recording.sideband is not None:
            self.wakeups.forget(recording.sideband)
            # Lists are cleared from their end: others wait for their events, nobody for these.
            self.graves[:0] = recording.sideband.close()
            recording.sideband = recording.sideband_kind = None

    def claim_event(self, peer: Peer, fd: OwnedFd) -> None:
        """PERF_EVENT_IOC_CLAIM: take the event behind this fd out of the registry.

        Raises:
            BrokerError: EINVAL: not persistent.
        """
        found = self.registry.by_kernel_id(perf_fd.check(fd.fileno()))
        if found is None:
            raise BrokerError(errno.EINVAL, "this event is not persistent")
        recording, kind, event = found
        check(peer, recording, Level.OWN, "claim")
        leave(self.keeper, self.registry, recording, kind, event)
        self.graves.append(event)
        # Before the answer: UNCLAIM refuses an event that has a ring (EBUSY), and may follow at once.
        unmap(self.keeper)
        self._settle(recording)

    def _settle(self, recording: Recording) -> None:
        """After events have left: have the keeper remember what stays, if anything does."""
        if recording.kinds:
            # The events have left; a disk that is full cannot bring them back.
            with suppress(BrokerError):
                self.state.save(recording, self.registry)
            remember(self.keeper, recording)
        else:
            self._end_sideband(recording)
            self.keeper.drop(recording.prefix)
            self.state.forget(recording.name)
        self.show(recording)
