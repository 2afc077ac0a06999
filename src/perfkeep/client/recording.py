"""Recordings: made, listed, counted, changed, snapshotted and ended."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

import msgspec

from perfkeep import extras
from perfkeep.client.connection import call
from perfkeep.errors import PerfkeepError, UsageError
from perfkeep.wire import messages
from perfkeep.wire.messages import Named, RecordingInfo

if TYPE_CHECKING:
    from perfkeep.client.following import Follower
    from perfkeep.client.snapshot import Snapshot
    from perfkeep.kernel.fd import OwnedFd

Spec = str | tuple[str, str | None]


class Recording:
    """A named recording, wherever it was made.

    Attributes:
        name: by which any permitted process finds it.
        notes: what `start` or the last `add` had to do otherwise than asked, a sentence each.
        system: whether it is one of root's instance, whatever the caller's own is.
    """

    def __init__(self, name: str, notes: Sequence[str] = (), *, system: bool = False) -> None:
        self.name = name
        self.notes = tuple(notes)
        self.system = system

    def _call(
        self, method: str, parameters: msgspec.Struct, fds: Sequence[OwnedFd] = ()
    ) -> msgspec.Struct:
        return call(method, parameters, fds, system=self.system)[0]

    @property
    def info(self) -> RecordingInfo:
        """What `perfkeep ls` shows of it, as it is now.

        Raises:
            BrokerError: ENOENT: it is gone.
        """
        return _as_it_is(cast(RecordingInfo, self._call("Show", Named(self.name))), self.system)

    def stat(self) -> messages.Stat:
        """The counts of each event and CPU, raw, and what they add up to; time in ns."""
        return cast(messages.Stat, self._call("Stat", Named(self.name)))

    def throttled(self) -> dict[tuple[int, int], int]:
        """The number of times the kernel stopped an event until the next tick, because it sampled too
        often: by the event's id and the CPU. The event neither samples nor counts meanwhile.

        The kernel keeps no count of it, so every ring is copied and read: it covers what the rings
        still hold, and takes about as long as a snapshot.

        Raises:
            BrokerError: ENOENT: it is gone.
        """
        from perfkeep.client.snapshot import throttled

        return throttled(self.name, self.system)

    def snapshot(
        self,
        path: str | None = None,
        *,
        last: str | float | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
    ) -> Snapshot:
        """Copy what the rings hold into a perf.data file, while they go on recording.

        Args:
            path: the file, written aside and renamed; None keeps the data in memory.
            last: only this much before now: "10s", or a number of seconds.
            since_ns, until_ns: only this span of CLOCK_MONOTONIC.

        Raises:
            BrokerError: ENOENT: it is gone.
            OSError: the file cannot be written; nothing is left of it.
        """
        from perfkeep.client.snapshot import take

        return take(
            self.name, path, last=last, since_ns=since_ns, until_ns=until_ns, system=self.system
        )

    def follow(self) -> Follower:
        """Read it as it goes on, from what the rings hold now; needs the extra `analysis`.

            with recording.follow() as follower:
                while not follower.ended:
                    data = follower.poll()  # what is new, as tables, or None

        Any number may follow at once: each has its own place, and counts what it lost.
        """
        with extras.needed():
            from perfkeep.client.following import Follower

        return Follower(self.name, system=self.system)

    def enable(self) -> None:
        from perfkeep.client import opening

        with opening.cgroup_time(self.info.target):
            self._call("Enable", Named(self.name))

    def disable(self) -> None:
        """Stop counting and recording; what the rings hold stays."""
        self._call("Disable", Named(self.name))

    def add(self, events: str | Sequence[Spec], *, call_chains: bool = False) -> list[int]:
        """Let more events join, on the CPUs that the recording has; gives their ids."""
        from perfkeep.client import opening
        from perfkeep.client.snapshot import max_record

        info = self.info
        to = opening.scope_again(info)
        others = opening.counted_in_software(one.event for one in info.events)
        opened = opening.open_events(
            opening.distinct(opening.wanted(events)), to, call_chains, others
        )
        try:
            longest = min(1 << 16, max_record(opened.kinds))
            request = messages.Add(self.name, opened.kinds, opened.slots, longest)
            started = self._call("Add", request, opened.fds)
        finally:
            opened.close()
        self.notes = tuple(opened.notes)
        return cast(messages.Started, started).events

    def remove(self, events: str | int | Sequence[str | int]) -> None:
        """Take events out, by their spec as `info` shows it or by their id.

        Raises:
            UsageError: there is none, or several have the spec.
        """
        info = self.info
        ids: list[int] = []
        for wanted in [events] if isinstance(events, str | int) else events:
            found = [one.id for one in info.events if wanted in (one.id, one.event)]
            if not found:
                have = ", ".join(one.event for one in info.events)
                raise UsageError(f"{self.name!r} has no event {wanted!r}; it has {have}", 2)
            if len(found) > 1:
                raise UsageError(
                    f"{self.name!r} has {len(found)} events {wanted!r}, with the ids "
                    f"{', '.join(map(str, found))}",
                    hint=f"perfkeep remove {self.name} -e {found[-1]}",
                )
            ids += found
        self._call("Remove", messages.Remove(self.name, ids))

    def chmod(self, mode: int) -> None:
        """Who else may what: r is to see, to count and to take snapshots, w is control.

        Raises:
            BrokerError: EPERM: policy does not let this user share.
        """
        self._call("SetAccess", messages.SetAccess(self.name, access(mode=mode)))

    def chown(self, owner: str | int | None = None, group: str | int | None = None) -> None:
        """Give it to somebody else, which only root may, or to a group that the owner is of."""
        self._call("SetAccess", messages.SetAccess(self.name, access(owner, group)))

    def expire(self, ttl: str | float | None) -> None:
        """Have it end by itself after this long; None: it stays until it is claimed."""
        self._call("Expire", messages.Expire(self.name, time_to_live(ttl)))

    def claim(self) -> None:
        """End it: its events die when the last fd of each is closed."""
        self._call("Claim", Named(self.name))

    def __repr__(self) -> str:
        return f"<Recording {self.name!r}>"


def start(
    name: str | None,
    events: str | Sequence[Spec],
    *,
    cpus: Iterable[int] | None = None,
    pid: int | None = None,
    cgroup: str | None = None,
    ring: str | int | None = None,
    call_chains: bool = False,
    enable: bool = True,
    owner: str | int | None = None,
    group: str | int | None = None,
    mode: int | None = None,
    ttl: str | float | None = None,
    spill: str | None = None,
    spill_every: str | float | None = None,
    sideband: bool = True,
    system: bool = False,
) -> Recording:
    """Start a recording that goes on when this process has gone.

    Args:
        name: up to 64 letters, digits, "_", "." and "-"; None: it is called by its id.
        events: a spec as `perf record -e` takes it, or several, each alone or as (spec, filter).
        cpus: only these; None: all that are online.
        pid: only this process, all its threads and what they fork; None: every task.
        cgroup: only the tasks of this cgroup.
        ring: bytes per CPU ("8M" or a number), a power of two pages; None: 8 MiB, or as much
            as this user may lock.
        call_chains: record the call chain with each sample.
        enable: whether it records from the beginning.
        owner, group, mode: who may what, names or numbers, Unix style; None: the caller's own,
            and 0o600. r is to see, to count and to take snapshots, w is control.
        ttl: it ends by itself after this long.
        spill: a directory in which a copy of the rings is kept, for `perfkeep recover`.
        spill_every: how old that copy may be; None: 5 s.
        sideband: have the kernel tell of processes beside it; without that nothing is done when one
            begins or ends, and who has ended has no name in a snapshot.
        system: in root's instance, where its policy allows it, whatever the caller's own is.

    Raises:
        SpecError: an event spec, with the part that is wrong.
        UsageError: CPUs, ring size, pid or cgroup that cannot be.
        KernelRefused: the kernel said no; the message names the setting or limit.
        BrokerError: EEXIST: the name is taken.
    """
    from perfkeep.client import limits, opening
    from perfkeep.client import sideband as aside
    from perfkeep.client.pids import shows_every_task
    from perfkeep.units import parse_size

    to = opening.scope(None if cpus is None else tuple(cpus), pid, cgroup)
    size = parse_size(ring) if isinstance(ring, str) else ring
    if size is None:
        size = limits.default_ring(len(to.cpus))
    limits.check_ring(size, len(to.cpus))
    wanted = opening.distinct(opening.wanted(events))
    opened = opening.open_events(wanted, to, call_chains)
    try:
        request = messages.Start(
            name,
            messages.Ring("backward", size),
            opened.kinds,
            opened.slots,
            to.target,
            enable,
            access=access(owner, group, mode),
            ttl_ns=time_to_live(ttl),
            every_cpu=cpus is None,
        )
        with opening.cgroup_time(to.target):
            started = _start(request, opened.fds, spill, spill_every, system)
    finally:
        opened.close()
    if not shows_every_task(to.target):
        opened.notes.append(
            "this process is in a PID namespace of its own: samples of tasks outside of it have the pid 0, and "
            "neither names nor functions"
        )
    if sideband:
        opened.notes += aside.add(started.name, opened.kinds, to.target, to.cpus, system=system)
    return Recording(started.name, opened.notes, system=system)


def _start(
    request: messages.Start,
    fds: list[OwnedFd],
    spill: str | None,
    spill_every: str | float | None,
    system: bool,
) -> messages.Started:
    if spill is None:
        if spill_every is not None:
            raise UsageError(
                "spill_every says how often to spill, and no directory was named",
                hint="name a directory with spill as well",
            )
        return cast(messages.Started, call("Start", request, fds, system=system)[0])
    from perfkeep.client import spill as files
    from perfkeep.client.snapshot import max_record
    from perfkeep.units import parse_duration

    directory = os.path.abspath(spill)
    every_ns = parse_duration("5s" if spill_every is None else spill_every)
    if not 10**8 <= every_ns <= 86400 * 10**9:
        raise UsageError("rings are spilled every 100ms to 24h, 5s unless told otherwise")
    longest = min(1 << 16, max_record(request.kinds))
    request = msgspec.structs.replace(request, spill=messages.Spill(directory, every_ns, longest))
    cpus = sorted({slot.cpu for slot in request.slots})
    length = len(msgspec.json.encode(request))
    made = files.prepare(directory, cpus, request.ring.bytes_per_cpu, length)
    try:
        started, _ = call("Start", request, [*fds, *made], system=system)
    except BaseException:
        files.undo(directory, made)
        raise
    for file in made:
        file.close()
    return cast(messages.Started, started)


def access(
    owner: str | int | None = None, group: str | int | None = None, mode: int | None = None
) -> messages.Access:
    """Who may what, with names made numbers.

    Raises:
        UsageError: a mode that has more than r and w.
        PerfkeepError: ENOENT: no such user or group.
    """
    if mode is not None and mode & ~0o666:
        raise UsageError(
            f"a mode has r and w only, and {mode:04o} has more", hint="write it like 0640"
        )
    return messages.Access(_id(owner, "user"), _id(group, "group"), mode)


def _id(name: str | int | None, what: str) -> int | None:
    if name is None or isinstance(name, int):
        return name
    if name.isdecimal() and len(name) < 11:
        return int(name)
    import grp
    import pwd

    try:
        return pwd.getpwnam(name).pw_uid if what == "user" else grp.getgrnam(name).gr_gid
    except KeyError:
        raise PerfkeepError(errno.ENOENT, f"there is no {what} {name!r}") from None


def time_to_live(ttl: str | float | None) -> int | None:
    """Nanoseconds.

    Raises:
        UsageError: no time span, or none at all.
    """
    if ttl is None:
        return None
    from perfkeep.units import parse_duration

    found = parse_duration(ttl)
    if found <= 0:
        raise UsageError(f"a time to live of {ttl!r} would be over at once")
    return found


def recordings(*, system: bool = False) -> list[Recording]:
    """All recordings that the caller may see, oldest first.

    Args:
        system: those of root's instance, whatever the caller's own is.
    """
    return [Recording(info.name, system=system) for info in infos(system=system)]


def infos(*, system: bool = False) -> list[RecordingInfo]:
    """The same, with all that `perfkeep ls` shows."""
    listed, _ = call("List", messages.Nothing(), system=system)
    return [_as_it_is(info, system) for info in cast(messages.Recordings, listed).recordings]


def _as_it_is(info: RecordingInfo, system: bool) -> RecordingInfo:
    """The same recording, with a problem that only the kernel knows of."""
    if info.target.program is None:
        return info
    from perfkeep.client.adopted import as_it_is  # to list recordings needs little

    return as_it_is(info, system)
