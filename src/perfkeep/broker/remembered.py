"""What the keeper remembers of recordings for the next broker, and under which keys.

A recording lies on the keeper's shelf under its id R:

    R/                      RecordingValue, put last: without it the rest means nothing
    R/k/K/                  the Kind of event with id K
    R/r/K/                  which events of kind K left; the rings still hold records of theirs
    R/e/K/CPU/N/            one event of it, with its fd, and its ring when it owns one
    #ids                    the next id
"""

from __future__ import annotations

import msgspec

from perfkeep.broker.link import KeeperLink
from perfkeep.broker.registry import KindOfEvent, Recording
from perfkeep.wire.messages import Owner, Ring

IDS = b"#ids"


class RecordingValue(msgspec.Struct):
    """What the keeper remembers of a recording for the next broker.

    A kind of event that `kinds` does not name was still joining when the broker died.
    """

    id: int
    name: str
    owner: Owner
    ring: Ring
    target: str
    created_ns: int
    mode: int
    gid: int
    enabled: bool
    kinds: list[int]


class EventValue(msgspec.Struct, omit_defaults=True):
    """What the keeper remembers beside an event's fd.

    `retired`: the event was removed, and stays only as the owner of a ring that others use.
    """

    kind: int
    cpu: int
    retired: bool = False


def kind_key(recording: Recording, id: int) -> bytes:
    return b"%sk/%d/" % (recording.prefix, id)


def retired_key(recording: Recording, id: int) -> bytes:
    return b"%sr/%d/" % (recording.prefix, id)


def event_key(recording: Recording, kind: KindOfEvent, cpu: int) -> bytes:
    """For the next event of a kind on a CPU."""
    return b"%se/%d/%d/%d/" % (recording.prefix, kind.id, cpu, len(kind.events))


def remember(keeper: KeeperLink, recording: Recording) -> None:
    """Put the recording's own value, which makes all its other keys count."""
    plain = {name: getattr(recording, name) for name in RecordingValue.__struct_fields__[:-1]}
    value = RecordingValue(**plain, kinds=list(recording.kinds))
    keeper.put(recording.prefix, msgspec.json.encode(value))
