"""How an event leaves a recording: what it was stays known, for the records that the ring holds.

Whoever calls this closes the event at leisure: the kernel takes 40 ms to close the last user of a
tracepoint.
"""

from __future__ import annotations

import fcntl
import threading
from contextlib import suppress

import msgspec

from perfkeep.abi.perf_event import Ioctl
from perfkeep.broker.joining import detach
from perfkeep.broker.link import KeeperLink
from perfkeep.broker.registry import Event, KindOfEvent, Recording, Registry
from perfkeep.broker.remembered import EventValue, kind_key, retired_key
from perfkeep.broker.rings import unmapped
from perfkeep.wire import messages

#: A recording remembers no more kinds of event that left it; the oldest is forgotten first.
MOST_RETIRED = 256
#: And of each kind, on each CPU, no more events: CPUs may come and go for years.
_MOST_IDS = 256


def bury_dead(
    keeper: KeeperLink, registry: Registry, recording: Recording, kind: KindOfEvent, event: Event
) -> None:
    """An event that died, and has a successor in its ring, goes; its kind stays."""
    _retire(keeper, recording, kind, event)
    ring = recording.rings[event.cpu]
    if ring.key == event.key:
        value = EventValue(kind.id, event.cpu, retired=True)
        keeper.put(event.key, msgspec.json.encode(value))
    else:
        keeper.drop(event.key)
    ring.users -= 1
    registry.forget_event(kind, event)


def leave(
    keeper: KeeperLink, registry: Registry, recording: Recording, kind: KindOfEvent, event: Event
) -> None:
    """Take one event out. One that owns a ring which others use stays behind, switched off. The ring
    of the last one is unmapped now, unless a snapshot or a copy holds it.
    """
    ring = recording.rings[event.cpu]
    last, owner = ring.users == 1, ring.key == event.key
    # The keeper first: if it dies now, nothing has changed here, and the next one is given
    # the event again.
    _retire(keeper, recording, kind, event)
    if not owner:
        keeper.drop(event.key)
    elif not last:
        value = EventValue(kind.id, event.cpu, retired=True)
        keeper.put(event.key, msgspec.json.encode(value))
    if last:
        keeper.drop(ring.key)
        del recording.rings[event.cpu]
    ring.users -= 1
    if not owner:
        # Whoever else has it open must not go on writing into the recording's ring.
        detach(event.fd)
    elif not last:
        fcntl.ioctl(event.fd.fileno(), Ioctl.DISABLE, 0)
    registry.remove_event(recording, kind, event)
    if kind.id not in recording.kinds:
        keeper.drop(kind_key(recording, kind.id))


def _retire(keeper: KeeperLink, recording: Recording, kind: KindOfEvent, event: Event) -> None:
    """Remember whose records these were, for snapshots to come."""
    known = recording.retired.get(kind.id)
    ids = {cpu: list(some) for cpu, some in known.kernel_ids.items()} if known else {}
    ids[event.cpu] = [*ids.get(event.cpu, []), event.kernel_id][-_MOST_IDS:]
    gone = messages.KindInSnapshot(kind.id, kind.kind, ids)
    keeper.put(retired_key(recording, kind.id), msgspec.json.encode(gone))
    recording.retired[kind.id] = gone
    if len(recording.retired) > MOST_RETIRED:
        oldest = next(iter(recording.retired))
        del recording.retired[oldest]
        keeper.drop(retired_key(recording, oldest))


def close_in_thread(graves: list[object]) -> None:
    """Close what has left: the kernel takes 40 ms to close the last user of a tracepoint, and no
    client should have to wait for a recording of hundreds of them.
    """
    try:
        threading.Thread(target=graves.clear, daemon=True).start()
    except RuntimeError:  # no thread to be had; then every client waits
        graves.clear()


def unmap(keeper: KeeperLink) -> None:
    """Have the keeper unmap the rings that this process has unmapped."""
    for key in unmapped.take():
        with suppress(OSError):  # a keeper that is gone, or is older and unmaps at once
            keeper.unmap(key)
