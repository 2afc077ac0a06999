"""The interface org.perfkeep: what each method takes and gives.

`METHODS` is the one table that the broker serves from and the clients call by; the Varlink
description in `org.perfkeep.varlink` is tested against it. Times are nanoseconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from perfkeep.wire.framing import MAX_FDS

INTERFACE = "org.perfkeep"

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Cpu = Annotated[int, msgspec.Meta(ge=-1, lt=65536)]
RingKind = Literal["backward", "forward"]


class Tracepoint(msgspec.Struct, frozen=True):
    """A tracepoint as tracefs described it when it was opened."""

    system: Text
    name: Text
    id: Count
    format: Annotated[str, msgspec.Meta(max_length=1 << 17)]


class Kind(msgspec.Struct, frozen=True):
    """One kind of event: what is the same about it on every CPU.

    `event` is the spec that opens it again, `attr` the bytes of struct perf_event_attr
    (base64 on the wire), `filter` what PERF_EVENT_IOC_SET_FILTER was given.
    """

    event: Text
    name: Text
    attr: Annotated[bytes, msgspec.Meta(min_length=64, max_length=4096)]
    tracepoint: Tracepoint | None = None
    filter: Text | None = None


class Slot(msgspec.Struct, frozen=True):
    """What one staged fd is: an event of kind number `kind` (in the same request) on `cpu`."""

    kind: Count
    cpu: Cpu


class Ring(msgspec.Struct, frozen=True):
    """The ring that each CPU of a recording has.

    One that does not overwrite was mapped writable first: when it is full the newest is lost.
    """

    kind: RingKind
    bytes_per_cpu: Count
    overwrites: bool = True


class Nothing(msgspec.Struct, frozen=True):
    """No parameters."""


class Staged(msgspec.Struct, frozen=True):
    """How many fds the connection has staged by now."""

    staged: int


class Start(msgspec.Struct, frozen=True):
    """Make the staged fds a recording. The first slot on each CPU owns that CPU's ring.

    Without a name the recording is called by its id, as the series called its events.
    `target` says in words what is recorded: "all tasks", "pid 17", "cgroup /x".
    `enable` None leaves the events enabled or not, as each is.
    `adopted`: the events have their rings already, of the size that `ring` says: the first slot
    on each CPU owns one, and the others on that CPU write into it.
    """

    name: Name | None
    ring: Ring
    kinds: list[Kind]
    slots: list[Slot]
    target: Text
    enable: bool | None
    adopted: bool = False


class Started(msgspec.Struct, frozen=True):
    """Ids of the recording and of its kinds, in the order of the request."""

    id: int
    name: str
    events: list[int]


class Named(msgspec.Struct, frozen=True):
    """A recording by its name."""

    name: Name


class Add(msgspec.Struct, frozen=True):
    """Let the staged fds join a recording that runs."""

    name: Name
    kinds: list[Kind]
    slots: list[Slot]


class Remove(msgspec.Struct, frozen=True):
    """Take kinds of event, by id, out of a recording."""

    name: Name
    events: list[int]


class ById(msgspec.Struct, frozen=True):
    """One event: the kind's id and the CPU."""

    id: int
    cpu: int


class Reopened(msgspec.Struct, frozen=True):
    """The event's fd rides along; behind it the ring owner's fd when that is another event.

    On Linux 6.17 and later a redirected event cannot be mapped, its ring's owner can.
    """

    kind: Kind
    ring: Ring
    fds: int


class Owner(msgspec.Struct, frozen=True):
    """Who made a recording, by the kernel's word (SO_PEERCRED) at the time."""

    uid: int
    gid: int
    pid: int
    command: str


class EventInfo(msgspec.Struct, frozen=True):
    """One kind of event in a list."""

    id: int
    event: str
    cpus: list[int]


State = Literal["running", "disabled", "ended"]


class RecordingInfo(msgspec.Struct, frozen=True):
    """One recording in a list. `created_ns` is CLOCK_REALTIME."""

    name: str
    id: int
    state: State
    created_ns: int
    owner: Owner
    mode: int
    gid: int
    ring: Ring
    target: str
    events: list[EventInfo]


class Recordings(msgspec.Struct, frozen=True):
    recordings: list[RecordingInfo]


class EventId(msgspec.Struct, frozen=True):
    """A kind of event by its id, whatever its CPUs."""

    id: int


class EventShown(msgspec.Struct, frozen=True):
    """A kind of event, and the name of the recording that it belongs or belonged to."""

    recording: str
    kind: Kind


class Counts(msgspec.Struct, frozen=True):
    """What read(2) of events gives, summed over the events of one CPU."""

    cpu: int
    value: int
    time_enabled_ns: int
    time_running_ns: int
    lost: int


class EventCounts(msgspec.Struct, frozen=True):
    """The counts of one kind of event."""

    id: int
    event: str
    per_cpu: list[Counts]


class Stat(msgspec.Struct, frozen=True):
    name: str
    events: list[EventCounts]


class KindInSnapshot(msgspec.Struct, frozen=True):
    """A kind of event with the kernel's ids of its events, per CPU."""

    id: int
    kind: Kind
    kernel_ids: dict[int, list[int]]


class Snapshot(msgspec.Struct, frozen=True):
    """What a snapshot will hold; its rings are asked for one by one with CopyRing.

    The rings stay as they are asked for here, even when the recording is claimed meanwhile.
    """

    recording: RecordingInfo
    kinds: list[KindInSnapshot]
    cpus: list[int]


class CopyRing(msgspec.Struct, frozen=True):
    """Copy one ring of the snapshot that this connection began: an index into `cpus`."""

    index: Count


class RingCopied(msgspec.Struct, frozen=True):
    """The copy rides along as a sealed memfd of `bytes`, in one piece.

    backward: offset 0 is `head_before`, records go from the newest to the oldest.
    forward: the last byte lies before `head_before`, records go from the oldest to the newest.
    """

    cpu: int
    bytes: int
    head_before: int
    head_after: int


class ProcessStatus(msgspec.Struct, frozen=True):
    """What one of the daemons takes of the machine."""

    pid: int
    rss_bytes: int
    cpu_ms: int


class About(msgspec.Struct, frozen=True):
    """What the broker knows of its own instance."""

    socket: str
    log: str
    version: str
    keeper_pid: int


class Status(msgspec.Struct, frozen=True):
    socket: str
    log: str
    version: str
    recordings: int
    events: int
    ring_bytes: int
    broker: ProcessStatus
    keeper: ProcessStatus


#: method → (parameters, result)
METHODS: dict[str, tuple[type[msgspec.Struct], type[msgspec.Struct]]] = {
    "GetStatus": (Nothing, Status),
    "List": (Nothing, Recordings),
    "Show": (Named, RecordingInfo),
    "ShowEvent": (EventId, EventShown),
    "Stat": (Named, Stat),
    "Stage": (Nothing, Staged),
    "Start": (Start, Started),
    "Add": (Add, Started),
    "Remove": (Remove, Nothing),
    "Enable": (Named, Nothing),
    "Disable": (Named, Nothing),
    "Claim": (Named, Nothing),
    "ClaimEvent": (Nothing, Nothing),
    "Reopen": (ById, Reopened),
    "BeginSnapshot": (Named, Snapshot),
    "CopyRing": (CopyRing, RingCopied),
}


class Info(msgspec.Struct, frozen=True):
    """org.varlink.service.GetInfo"""

    vendor: str
    product: str
    version: str
    url: str
    interfaces: list[str]


class InterfaceName(msgspec.Struct, frozen=True):
    interface: Text


class Description(msgspec.Struct, frozen=True):
    """org.varlink.service.GetInterfaceDescription"""

    description: str


#: What every Varlink service answers.
VARLINK_SERVICE = "org.varlink.service"
SERVICE_METHODS: dict[str, tuple[type[msgspec.Struct], type[msgspec.Struct]]] = {
    "GetInfo": (Nothing, Info),
    "GetInterfaceDescription": (InterfaceName, Description),
}

#: Most fds that one connection may stage before it uses them.
MAX_STAGED = 1 << 20
FDS_PER_STAGE = MAX_FDS - 3
