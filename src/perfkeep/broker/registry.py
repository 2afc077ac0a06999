"""What exists: recordings, their kinds of event, events and rings, found by name or id.

Pure: it holds fds and mappings that others made, and makes no system call of its own.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from perfkeep.broker.rings import MappedRing
from perfkeep.errors import BrokerError
from perfkeep.kernel.fd import OwnedFd
from perfkeep.wire.messages import Counts, Gap, Kind, KindInSnapshot, Owner, Ring, Spill, Target

if TYPE_CHECKING:
    from perfkeep.broker.sideband import Sideband

# A leading dash would read as an option; a slash would not fit a file name in sysfs.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class Event:
    """One perf event on one CPU: what one perf fd stands for."""

    __slots__ = ("cpu", "fd", "kernel_id", "key")

    def __init__(self, cpu: int, fd: OwnedFd, kernel_id: int, key: bytes) -> None:
        self.cpu = cpu
        self.fd = fd
        self.kernel_id = kernel_id
        #: On the keeper's shelf.
        self.key = key


class KindOfEvent:
    """What is the same on every CPU, under one id, and the events themselves."""

    __slots__ = ("before", "events", "id", "kind")

    def __init__(self, id: int, kind: Kind) -> None:
        self.id = id
        self.kind = kind
        self.events: list[Event] = []
        #: Per CPU what events counted that have died since and were opened again.
        self.before: dict[int, Counts] = {}

    @property
    def cpus(self) -> list[int]:
        return sorted({event.cpu for event in self.events})


class Recording:
    """A named set of kinds of event × CPUs, with one ring per CPU."""

    __slots__ = (
        "cpus",
        "created_ns",
        "enabled",
        "every_cpu",
        "expires_ns",
        "gaps",
        "gid",
        "id",
        "kinds",
        "mode",
        "name",
        "offline",
        "owner",
        "problem",
        "retired",
        "ring",
        "rings",
        "sideband",
        "sideband_kind",
        "spill",
        "spill_files",
        "target",
    )

    def __init__(
        self, id: int, name: str, owner: Owner, ring: Ring, target: Target, created_ns: int
    ) -> None:
        self.id = id
        self.name = name
        self.owner = owner
        self.ring = ring
        self.target = target
        self.created_ns = created_ns
        self.mode = 0o600
        self.gid = owner.gid
        self.enabled = False
        #: Where it shall record; those that come online join when it is of every CPU.
        self.cpus: list[int] = []
        self.every_cpu = False
        #: CLOCK_BOOTTIME; None: it stays until it is claimed.
        self.expires_ns: int | None = None
        self.gaps: list[Gap] = []
        #: CPUs whose events died with them.
        self.offline: list[int] = []
        #: Why events could not be opened again; they are still to be.
        self.problem = ""
        self.spill: Spill | None = None
        #: How its sideband is opened; None: it has none.
        self.sideband_kind: Kind | None = None
        self.sideband: Sideband | None = None
        #: By CPU; -1 is the meta file.
        self.spill_files: dict[int, OwnedFd] = {}
        self.kinds: dict[int, KindOfEvent] = {}
        #: Events that left, by the id of their kind: the rings still hold records of theirs.
        self.retired: dict[int, KindInSnapshot] = {}
        self.rings: dict[int, MappedRing] = {}

    @property
    def prefix(self) -> bytes:
        """What all its keys on the keeper's shelf begin with."""
        return b"%d/" % self.id

    def events(self) -> Iterator[Event]:
        for kind in self.kinds.values():
            yield from kind.events


def check_name(name: str) -> None:
    """Raises: BrokerError: EINVAL: not a name that fits sysfs and a command line."""
    if not _NAME.fullmatch(name) or name.isdecimal():
        raise BrokerError(
            errno.EINVAL,
            f"{name!r} cannot be a recording's name: up to 64 letters, digits, _ . and - "
            "(not first), and not a number alone",
        )


class Registry:
    """All recordings of an instance. Every look-up is one step, however many there are."""

    def __init__(self) -> None:
        self.next_id = 1
        self._by_name: dict[str, Recording] = {}
        self._by_id: dict[int, tuple[Recording, KindOfEvent]] = {}
        self._by_kernel_id: dict[int, tuple[Recording, KindOfEvent, Event]] = {}

    def __iter__(self) -> Iterator[Recording]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    @property
    def events(self) -> int:
        return len(self._by_kernel_id)

    def allocate(self, count: int) -> range:
        """`count` ids that no one had before in this instance's life."""
        first = self.next_id
        self.next_id += count
        return range(first, self.next_id)

    def check_free(self, name: str) -> None:
        """Raises: BrokerError: EEXIST."""
        if name in self._by_name:
            raise BrokerError(
                errno.EEXIST,
                f"a recording named {name!r} exists already",
                hint=f"choose another name, or end that recording with perfkeep claim {name}",
            )

    def named(self, name: str) -> Recording | None:
        return self._by_name.get(name)

    def kind(self, id: int) -> tuple[Recording, KindOfEvent]:
        """Raises: BrokerError: ENOENT."""
        found = self._by_id.get(id)
        if found is None:
            raise BrokerError(
                errno.ENOENT,
                f"there is no persistent event with id {id}",
                hint="perfkeep ls",
            )
        return found

    def by_kernel_id(self, kernel_id: int) -> tuple[Recording, KindOfEvent, Event] | None:
        return self._by_kernel_id.get(kernel_id)

    def add(self, recording: Recording) -> None:
        self.check_free(recording.name)
        self._by_name[recording.name] = recording
        for kind in recording.kinds.values():
            self._index(recording, kind)

    def add_kind(self, recording: Recording, kind: KindOfEvent) -> None:
        recording.kinds[kind.id] = kind
        self._index(recording, kind)

    def _index(self, recording: Recording, kind: KindOfEvent) -> None:
        self._by_id[kind.id] = (recording, kind)
        for event in kind.events:
            self._by_kernel_id[event.kernel_id] = (recording, kind, event)

    def add_event(self, recording: Recording, kind: KindOfEvent, event: Event) -> None:
        kind.events.append(event)
        self._by_kernel_id[event.kernel_id] = (recording, kind, event)

    def forget_event(self, kind: KindOfEvent, event: Event) -> None:
        """Take one event out; its kind stays, for another to come."""
        kind.events.remove(event)
        del self._by_kernel_id[event.kernel_id]

    def remove_event(self, recording: Recording, kind: KindOfEvent, event: Event) -> None:
        """Take one event out; with its last event a kind goes, with its last kind a recording."""
        self.forget_event(kind, event)
        if not kind.events:
            self.remove_kind(recording, kind)

    def remove_kind(self, recording: Recording, kind: KindOfEvent) -> None:
        for event in kind.events:
            del self._by_kernel_id[event.kernel_id]
        del self._by_id[kind.id]
        del recording.kinds[kind.id]
        if not recording.kinds:
            del self._by_name[recording.name]

    def remove(self, recording: Recording) -> None:
        for kind in list(recording.kinds.values()):
            self.remove_kind(recording, kind)
        self._by_name.pop(recording.name, None)
