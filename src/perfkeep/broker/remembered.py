"""What the keeper remembers of recordings for the next broker, and under which keys.

A recording lies on the keeper's shelf under its id R:

    R/                      RecordingValue, put last: without it the rest means nothing
    R/k/K/                  the Kind of event with id K
    R/r/K/                  which events of kind K left; the rings still hold records of theirs
    R/b/K/                  what events of kind K counted before they died
    R/a/CPU/N/              an event of its sideband, see broker.sideband
    R/p/N/                  what its sideband has told
    R/s/CPU/                a file that the ring is spilled to, with its fd; CPU -1: the meta file
    R/e/K/CPU/N/            one event of it, with its fd, and its ring when it owns one; N is the
                            kernel's id of the event
    #ids                    the next id
    #uevents                the socket that hears of CPUs; what it heard while no broker was there
                            is still in it
"""

from __future__ import annotations

import msgspec

from perfkeep.broker.link import KeeperLink
from perfkeep.broker.registry import KindOfEvent, Recording
from perfkeep.wire.messages import Gap, Kind, Owner, Ring, Spill, Target

IDS = b"#ids"
UEVENTS = b"#uevents"


class RecordingValue(msgspec.Struct):
    """What the keeper remembers of a recording for the next broker.

    A kind of event that `kinds` does not name was still joining when the broker died.
    """

    id: int
    name: str
    owner: Owner
    ring: Ring
    target: Target
    created_ns: int
    mode: int
    gid: int
    enabled: bool
    kinds: list[int]
    # What came later has defaults: the keeper may have been filled by an older broker.
    cpus: list[int] = []
    every_cpu: bool = False
    expires_ns: int | None = None
    gaps: list[Gap] = []
    offline: list[int] = []
    problem: str = ""
    spill: Spill | None = None
    sideband_kind: Kind | None = None

    def recording(self) -> Recording:
        """What it was made of, still without kinds, events and rings."""
        made = Recording(self.id, self.name, self.owner, self.ring, self.target, self.created_ns)
        self.restore(made)
        return made

    def restore(self, recording: Recording) -> None:
        """Have the recording be again what it was, but for its kinds."""
        for name in _PLAIN:
            setattr(recording, name, getattr(self, name))


#: What a recording and its value have alike.
_PLAIN = tuple(name for name in RecordingValue.__struct_fields__ if name != "kinds")


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


def before_key(recording: Recording, id: int) -> bytes:
    return b"%sb/%d/" % (recording.prefix, id)


def spill_key(recording: Recording, cpu: int) -> bytes:
    return b"%ss/%d/" % (recording.prefix, cpu)


def event_key(recording: Recording, kind: KindOfEvent, cpu: int, kernel_id: int) -> bytes:
    return b"%se/%d/%d/%d/" % (recording.prefix, kind.id, cpu, kernel_id)


def remember_before(keeper: KeeperLink, recording: Recording, kind: KindOfEvent) -> None:
    """Put what events of this kind counted before they died, if any did."""
    if kind.before:
        counts = msgspec.json.encode(list(kind.before.values()))
        keeper.put(before_key(recording, kind.id), counts)


def value_of(recording: Recording) -> RecordingValue:
    plain = {name: getattr(recording, name) for name in _PLAIN}
    return RecordingValue(**plain, kinds=list(recording.kinds))


def remember(keeper: KeeperLink, recording: Recording) -> None:
    """Put the recording's own value, which makes all its other keys count."""
    keeper.put(recording.prefix, msgspec.json.encode(value_of(recording)))
