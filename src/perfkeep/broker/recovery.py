"""When a daemon has died: the registry from the keeper's shelf, the shelf from the registry."""

from __future__ import annotations

import msgspec

from perfkeep.broker.link import Item, KeeperLink
from perfkeep.broker.registry import Event, KindOfEvent, Recording, Registry
from perfkeep.broker.remembered import (
    IDS,
    UEVENTS,
    EventValue,
    RecordingValue,
    kind_key,
    remember,
    remember_before,
    retired_key,
    spill_key,
)
from perfkeep.broker.rings import MappedRing
from perfkeep.broker.sideband import Sideband
from perfkeep.kernel import perf_fd
from perfkeep.kernel.fd import OwnedFd
from perfkeep.wire import messages, older
from perfkeep.wire.messages import Kind


def recover(keeper: KeeperLink, registry: Registry) -> OwnedFd | None:
    """Rebuild the registry from the keeper's shelf; drop what was never finished.

    Returns:
        The socket that hears of CPUs, if the keeper has it.
    """
    items = {item.key: item for item in keeper.items()}
    if IDS in items:
        registry.next_id = int(items.pop(IDS).value)
    uevents = items.pop(UEVENTS).fd if UEVENTS in items else None
    metas = [item for key, item in items.items() if key.count(b"/") == 1]
    for meta in metas:
        value = older.decode(meta.value, RecordingValue)
        recording = value.recording()
        for key in _fill(recording, value.kinds, items):
            keeper.drop(key)
        if recording.kinds:
            registry.add(recording)
    known = tuple(recording.prefix for recording in registry)
    for key in items:
        if not key.startswith(known):
            keeper.drop(key)
    keeper.unmap(b"")  # none of what was dropped has been mapped here
    return uevents


def _fill(recording: Recording, finished: list[int], items: dict[bytes, Item]) -> list[bytes]:
    """Give the recording what lies below its prefix, and the caller the keys of what does not
    belong to it.
    """
    strays: list[bytes] = []
    mine = {key: item for key, item in items.items() if key.startswith(recording.prefix)}
    for key, item in mine.items():
        if key.startswith(recording.prefix + b"k/"):
            id = int(key.split(b"/")[2])
            if id not in finished:
                strays.append(key)
                continue
            recording.kinds[id] = KindOfEvent(id, msgspec.json.decode(item.value, type=Kind))
        elif key.startswith(recording.prefix + b"s/") and item.fd is not None:
            recording.spill_files[int(key.split(b"/")[2])] = item.fd
        elif key.startswith(recording.prefix + b"r/"):
            gone = msgspec.json.decode(item.value, type=messages.KindInSnapshot)
            recording.retired[gone.id] = gone
    if recording.sideband_kind is not None:
        recording.sideband = Sideband(recording.prefix, recording.sideband_kind)
        recording.sideband.recover(mine)
    for key, item in mine.items():
        if key.startswith(recording.prefix + b"b/"):
            id = int(key.split(b"/")[2])
            if id in recording.kinds:
                counts = msgspec.json.decode(item.value, type=list[messages.Counts])
                recording.kinds[id].before = {one.cpu: one for one in counts}
            else:
                strays.append(key)
    # Owners of rings first, so that every event finds its ring.
    for key, item in sorted(mine.items(), key=lambda pair: -pair[1].ring_bytes):
        if item.fd is None or not key.startswith(recording.prefix + b"e/"):
            continue
        value = msgspec.json.decode(item.value, type=EventValue)
        if not value.retired and value.kind not in recording.kinds:
            strays.append(key)
            continue
        if item.ring_bytes:
            recording.rings[value.cpu] = MappedRing(
                value.cpu, item.fd, key, item.ring_bytes, recording.ring.kind == "backward",
                recording.ring.overwrites,
            )  # fmt: skip
        if value.retired:
            continue
        kernel_id = perf_fd.event_id(item.fd.fileno())
        event = Event(value.cpu, item.fd, kernel_id, key)
        recording.kinds[value.kind].events.append(event)
        recording.rings[value.cpu].users += 1
    if recording.problem:  # its events are still to be opened again
        return strays
    for id in [id for id, kind in recording.kinds.items() if not kind.events]:
        strays.append(kind_key(recording, id))  # all of its events had left
        del recording.kinds[id]
    return strays


def hand_over(keeper: KeeperLink, registry: Registry, uevents: int) -> None:
    """Give everything to a new keeper. `uevents` is the socket that hears of CPUs, or -1."""
    keeper.put(IDS, b"%d" % registry.next_id)
    if uevents >= 0:
        keeper.put(UEVENTS, b"", uevents)
    for recording in registry:
        for cpu, ring in recording.rings.items():
            # Overwritten below when the owner is still an event of its own.
            value = EventValue(0, cpu, retired=True)
            keeper.put(ring.key, msgspec.json.encode(value), ring.owner.fileno(), ring.bytes)
        for gone in recording.retired.values():
            keeper.put(retired_key(recording, gone.id), msgspec.json.encode(gone))
        for cpu, file in recording.spill_files.items():
            keeper.put(spill_key(recording, cpu), b"", file.fileno())
        if recording.sideband is not None:
            recording.sideband.hand_over(keeper)
        for kind in recording.kinds.values():
            keeper.put(kind_key(recording, kind.id), msgspec.json.encode(kind.kind))
            remember_before(keeper, recording, kind)
            for event in kind.events:
                value = EventValue(kind.id, event.cpu)
                owns = recording.rings[event.cpu].key == event.key
                fd = -1 if owns else event.fd.fileno()
                keeper.put(event.key, msgspec.json.encode(value), fd)
        remember(keeper, recording)
