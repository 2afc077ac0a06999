"""Opens the events of a recording once more: those that died with their CPU, or with both daemons.

With the rights of whoever runs this, like everything that opens events.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec

from perfkeep import events
from perfkeep.abi.perf_event import Attr, OpenFlag
from perfkeep.client import opening, spill
from perfkeep.client.pids import check_known
from perfkeep.errors import PerfkeepError, UsageError
from perfkeep.events import Event
from perfkeep.kernel import perf_fd, pmus
from perfkeep.kernel.fd import OwnedFd
from perfkeep.wire import messages


@dataclass(slots=True)
class Reopened:
    """What could be opened: `slots` (by the ids of their kinds) and `fds` belong together."""

    slots: list[messages.Slot] = field(default_factory=list)
    fds: list[OwnedFd] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def close(self) -> None:
        for fd in self.fds:
            fd.close()


def open_again(missing: messages.Missing) -> Reopened:
    """Open each kind on each CPU, disabled. One that cannot be is a problem of its own."""
    found = Reopened()
    try:
        check_known(missing.target)
        known = {id: _event(kind) for id, kind in missing.kinds.items()}
        with opening.tasks(missing.target) as (tasks, flags):
            for task in tasks:
                for cpu in missing.cpus:
                    _open_cpu(missing, known, found, task, cpu, flags)
    except PerfkeepError as error:
        found.problems.append(str(error))
    except BaseException:
        found.close()
        raise
    return found


def spill_again(missing: messages.Missing, found: Reopened) -> bool:
    """Make files for a new crash copy, if one is asked for; their fds come last. The one before it
    is put aside.
    """
    if missing.spill is None or not found.fds:
        return False
    length = len(msgspec.json.encode(missing))
    try:
        found.fds += spill.prepare(missing.spill, missing.cpus, missing.ring_bytes, length)
    except PerfkeepError as error:
        found.problems.append(str(error))
        return False
    return True


def _event(kind: messages.Kind) -> Event:
    """What its text means. Of one that was made otherwise than by text, the attr says all."""
    try:
        parsed = events.parse(kind.event)
    except PerfkeepError:
        attr = Attr.unpack(kind.attr)
        if attr.type in pmus.probe_types():
            raise
        return Event(kind.event, kind.name, attr, group=kind.group)
    if len(parsed) != 1:
        raise UsageError(f"{kind.event!r} is more than one event by now")
    return replace(parsed[0], group=kind.group)


def _open_cpu(
    missing: messages.Missing,
    known: dict[int, Event],
    found: Reopened,
    task: int,
    cpu: int,
    flags: OpenFlag,
) -> None:
    leaders: dict[int, OwnedFd] = {}
    for id, kind in missing.kinds.items():
        event = known[id]
        if event.cpus is not None and cpu not in event.cpus:
            continue
        leader = leaders.get(event.group) if event.group is not None else None
        group = leader.fileno() if leader else -1
        try:
            fd = opening.open_one(event, Attr.unpack(kind.attr), task, cpu, group, flags)
            found.fds.append(fd)
            found.slots.append(messages.Slot(id, cpu))
            if kind.filter is not None:
                perf_fd.set_filter(fd.fileno(), kind.filter)
        except OSError as error:
            found.problems.append(str(error))
            continue
        if event.group is not None:
            leaders.setdefault(event.group, fd)
