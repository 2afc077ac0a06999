"""What can be seen of recordings: lists, counts, an event's fd, the rings to copy.

Nothing here changes a recording.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from copy import deepcopy

from perfkeep.abi.perf_event import Attr, ReadFormat, Sample, Type
from perfkeep.broker.permission import Level, check, find, sees
from perfkeep.broker.registry import KindOfEvent, Recording, Registry
from perfkeep.broker.rings import MappedRing
from perfkeep.broker.spill import Job
from perfkeep.errors import BrokerError
from perfkeep.kernel import cgroups, cpus, perf_fd, pmus
from perfkeep.kernel.fd import OwnedFd
from perfkeep.wire import messages
from perfkeep.wire.socket import Peer


def _expires(recording: Recording) -> int | None:
    if recording.expires_ns is None:
        return None
    left = recording.expires_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return time.time_ns() + left


def _scales(recording: Recording, kind: KindOfEvent) -> bool:
    """True if the event, or one that is scheduled together with it, needs a hardware counter.

    The events of a process on some of its CPUs wait for the process as well as for a counter, and
    the kernel does not say for which.
    """
    everywhere = recording.every_cpu or set(recording.cpus) >= set(cpus.online())
    if recording.target.per_task and not everywhere:
        return False
    group = [kind]
    if kind.kind.group is not None:
        group = [one for one in recording.kinds.values() if one.kind.group == kind.kind.group]
    in_software = {Type.SOFTWARE, Type.TRACEPOINT, *pmus.probe_types()}
    return any(Attr.unpack(one.kind.attr).type not in in_software for one in group)


def _is_timed(attr: Attr) -> bool:
    """True if both times of an event can be read: perf record asks for them with -s only."""
    times = ReadFormat.TOTAL_TIME_ENABLED | ReadFormat.TOTAL_TIME_RUNNING
    return attr.read_format & times == times


def _tasks(target: messages.Target) -> str:
    if target.program is None:
        return str(target)
    return f"tasks that process {target.program.pid} ({target.program.command}) chose"


def _lost(recording: Recording, cpu: int) -> int | None:
    """Records of the ring of a CPU that the kernel had no room for; None: not all of its events count
    them.
    """
    total = 0
    for kind in recording.kinds.values():
        read_format = Attr.unpack(kind.kind.attr).read_format
        for event in kind.events:
            if event.cpu == cpu:
                lost = perf_fd.lost(event.fd.fileno(), read_format, event.kernel_id)
                if lost is None:
                    return None
                total += lost
    return total


class Views:
    """Every operation of the interface that only looks, for a peer already known."""

    def __init__(self, registry: Registry, spills: Mapping[int, Job]) -> None:
        self.registry = registry
        self.spills = spills

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
                messages.EventInfo(
                    kind.id,
                    kind.kind.event,
                    kind.cpus,
                    kind.kind.filter,
                    bool(Attr.unpack(kind.kind.attr).sample_type & Sample.CALLCHAIN),
                )
                for kind in recording.kinds.values()
            ],
            _expires(recording),
            recording.gaps,
            recording.offline,
            recording.problem,
            self._spill(recording),
            [] if recording.sideband is None else sorted(recording.sideband.cpus),
        )

    def _spill(self, recording: Recording) -> messages.SpillInfo | None:
        if recording.spill is None:
            return None
        directory, every_ns = recording.spill.directory, recording.spill.every_ns
        job = self.spills.get(recording.id)
        if job is None:
            return messages.SpillInfo(directory, every_ns, 0, 0, "its files are not there any more")
        return messages.SpillInfo(directory, every_ns, job.last_ns, job.bytes, job.problem)

    def _state(self, recording: Recording) -> messages.State:
        # With a ring an event hangs up only when its task is gone; ask until one lives.
        if all(perf_fd.hung_up(event.fd.fileno()) for event in recording.events()):
            return "ended"
        if recording.target.cgroup is not None and cgroups.is_gone(recording.target.cgroup):
            return "ended"
        return "running" if self._runs(recording) else "disabled"

    def _runs(self, recording: Recording) -> bool:
        """Ask the kernel: whoever has an event's fd may have switched it without telling us.

        While an event of a CPU is enabled its time runs, so two readings differ. The time of a
        task's event runs only while the task does; there we know what we were told.
        """
        kind, event = next(
            (kind, event)
            for kind in recording.kinds.values()
            for event in kind.events
            if event.cpu not in recording.offline or recording.offline == recording.cpus
        )
        read_format = Attr.unpack(kind.kind.attr).read_format
        if not read_format & ReadFormat.TOTAL_TIME_ENABLED or not recording.target.every_task:
            return recording.enabled
        fd = event.fd.fileno()
        first, second = perf_fd.read(fd, read_format), perf_fd.read(fd, read_format)
        return second.time_enabled_ns > first.time_enabled_ns

    def visible(self, peer: Peer) -> messages.Recordings:
        """What this peer may see, oldest first."""
        return messages.Recordings([self.info(one) for one in self.registry if sees(peer, one)])

    def show(self, peer: Peer, name: str) -> messages.RecordingInfo:
        return self.info(find(self.registry, peer, name, Level.READ, "look at"))

    def show_event(self, peer: Peer, id: int) -> messages.EventShown:
        """What an id stands for, or stood for while its event belonged to its recording.

        Raises:
            BrokerError: EACCES · ENOENT.
        """
        left = next((one for one in self.registry if id in one.retired), None)
        if left is not None:
            recording, kind = left, left.retired[id].kind
        else:
            recording, found = self.registry.kind(id)
            kind = found.kind
        check(peer, recording, Level.READ, "look at")
        return messages.EventShown(recording.name, kind)

    def stat(self, peer: Peer, name: str) -> messages.Stat:
        """The counts of every event, summed per CPU."""
        recording = find(self.registry, peer, name, Level.READ, "read")
        events = []
        for kind in recording.kinds.values():
            attr = Attr.unpack(kind.kind.attr)
            sums = {
                cpu: [one.value, one.time_enabled_ns, one.time_running_ns, one.lost]
                for cpu, one in kind.before.items()
            }
            for event in kind.events:
                got = perf_fd.read(event.fd.fileno(), attr.read_format)
                total = sums.setdefault(event.cpu, [0, 0, 0, 0])
                parts = (got.value, got.time_enabled_ns, got.time_running_ns, got.lost)
                for place, part in enumerate(parts):
                    total[place] += part
            counts = [messages.Counts(cpu, *total) for cpu, total in sorted(sums.items())]
            events.append(
                messages.EventCounts(
                    kind.id,
                    kind.kind.event,
                    counts,
                    "per_task" if recording.target.per_task else "per_cpu",
                    _scales(recording, kind),
                    "ns" if attr.is_clock else None,
                    _is_timed(attr),
                )
            )
        return messages.Stat(name, events)

    def reopen(self, peer: Peer, id: int, cpu: int) -> tuple[messages.Reopened, list[OwnedFd]]:
        """The fd of one event; and its ring's owner when that is another event.

        Raises:
            BrokerError: EINVAL bad CPU or an event of a process · EACCES · ENOENT.
        """
        if cpu < 0 or cpu not in cpus.possible():
            raise BrokerError(errno.EINVAL, f"there is no CPU {cpu} on this machine")
        recording, kind = self.registry.kind(id)
        check(peer, recording, Level.CONTROL, "reopen")
        events = [event for event in kind.events if event.cpu == cpu]
        if not events:
            raise BrokerError(
                errno.ENOENT,
                f"event {id} does not exist on CPU {cpu}; it lives on "
                f"{cpus.format_list(kind.cpus)}",
            )
        if recording.target.per_task and len(kind.events) > 1:
            raise BrokerError(
                errno.EINVAL,
                f"event {id} follows {_tasks(recording.target)}: it is {len(kind.events)} events, one for "
                "each thread and CPU, and only together do their counts and times mean something",
                hint=f"perfkeep stat {recording.name}",
            )
        fds = [events[0].fd]
        ring = recording.rings[cpu]
        if ring.key != events[0].key:
            fds.append(ring.owner)
        return messages.Reopened(kind.kind, recording.ring, len(fds)), fds

    def begin_snapshot(self, peer: Peer, name: str) -> tuple[messages.Snapshot, list[MappedRing]]:
        """What a snapshot will hold, and the rings to copy, which stay though it be claimed."""
        recording = find(self.registry, peer, name, Level.READ, "take a snapshot of")
        rings = [ring for _, ring in sorted(recording.rings.items())]
        info, kinds = self.info(recording), self.kinds(recording)
        lost = [] if recording.ring.overwrites else [_lost(recording, ring.cpu) for ring in rings]
        return messages.Snapshot(info, kinds, [ring.cpu for ring in rings], None, lost), rings

    def kinds(self, recording: Recording) -> list[messages.KindInSnapshot]:
        """Every kind of event of which the rings may hold records, by id."""
        kinds = {
            id: messages.KindInSnapshot(id, gone.kind, deepcopy(gone.kernel_ids))
            for id, gone in recording.retired.items()
        }
        for kind in recording.kinds.values():
            one = kinds.setdefault(kind.id, messages.KindInSnapshot(kind.id, kind.kind, {}))
            for event in kind.events:
                one.kernel_ids.setdefault(event.cpu, []).append(event.kernel_id)
        return [kind for _, kind in sorted(kinds.items())]
