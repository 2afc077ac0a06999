"""The interface org.perfkeep: what each method takes and gives.

`METHODS` is the one table that the broker serves from and the clients call by; the Varlink
description in `org.perfkeep.varlink` is tested against it. Times are nanoseconds.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from perfkeep.wire.framing import MAX_FDS
from perfkeep.wire.structs import (
    Access,
    Count,
    Counts,
    Cpu,
    EventCounts,
    EventInfo,
    Gap,
    Id,
    Kind,
    KindInSnapshot,
    Mode,
    Name,
    Over,
    Owner,
    ProcessStatus,
    Program,
    RecordingInfo,
    Ring,
    RingCopied,
    RingKind,
    Slot,
    Spill,
    SpillInfo,
    State,
    Target,
    Text,
    Told,
    Tracepoint,
    Usage,
)

__all__ = [
    "FDS_PER_STAGE",
    "GUEST_STAGED",
    "INTERFACE",
    "MAX_STAGED",
    "METHODS",
    "SERVICE_METHODS",
    "VARLINK_SERVICE",
    "Access",
    "Add",
    "AddSideband",
    "ById",
    "Collect",
    "Collected",
    "CopyRing",
    "Count",
    "Counts",
    "Cpu",
    "Description",
    "EventCounts",
    "EventId",
    "EventInfo",
    "EventShown",
    "Expire",
    "Gap",
    "Id",
    "Info",
    "InterfaceName",
    "Kind",
    "KindInSnapshot",
    "Missing",
    "Mode",
    "Name",
    "Named",
    "Nothing",
    "Over",
    "Owner",
    "ProcessStatus",
    "Program",
    "RecordingInfo",
    "Recordings",
    "Rejoin",
    "Remove",
    "Reopened",
    "Ring",
    "RingCopied",
    "RingKind",
    "SetAccess",
    "Slot",
    "Snapshot",
    "Spill",
    "SpillInfo",
    "Staged",
    "Start",
    "Started",
    "Stat",
    "State",
    "Status",
    "Target",
    "Text",
    "Told",
    "Tracepoint",
    "Upgrade",
    "Usage",
]

INTERFACE = "org.perfkeep"


class Nothing(msgspec.Struct, frozen=True):
    """No parameters."""


class Staged(msgspec.Struct, frozen=True):
    """How many fds the connection has staged by now."""

    staged: int


class Start(msgspec.Struct, frozen=True):
    """Make the staged fds a recording. The first slot on each CPU owns that CPU's ring.

    Without a name the recording is called by its id, as the series called its events.
    `enable` None leaves the events enabled or not, as each is.
    `adopted`: the events have their rings already, of the size that `ring` says: the first slot
    on each CPU owns one, and the others on that CPU write into it.
    `ttl_ns`: it ends by itself after this long. `every_cpu`: CPUs that come online join.
    """

    name: Name | None
    ring: Ring
    kinds: list[Kind]
    slots: list[Slot]
    target: Target
    enable: bool | None
    adopted: bool = False
    access: Access = Access()
    ttl_ns: Annotated[int, msgspec.Meta(gt=0, lt=2**62)] | None = None
    every_cpu: bool = False
    spill: Spill | None = None


class SetAccess(msgspec.Struct, frozen=True):
    """chmod and chown of a recording."""

    name: Name
    access: Access


class Expire(msgspec.Struct, frozen=True):
    """From now on it ends by itself after this long; None: it stays until it is claimed."""

    name: Name
    ttl_ns: Annotated[int, msgspec.Meta(gt=0, lt=2**62)] | None


class Rejoin(msgspec.Struct, frozen=True):
    """The staged fds take the place of events that died with their CPU, or with both daemons.

    Only whom the broker sent for this may call it. The kinds are named by their ids. `problem`
    says why some or all of them could not be opened. With `spills` the last fds are the files of a
    new crash copy: meta, and one for each CPU that Missing named.
    """

    name: Name
    slots: list[Slot]
    problem: Text = ""
    spills: bool = False


class Missing(msgspec.Struct, frozen=True):
    """What is to be opened again for one recording, on which CPUs."""

    name: str
    target: Target
    kinds: dict[int, Kind]
    cpus: list[int]
    ring_bytes: int
    #: Where to make files for a crash copy; None: not now.
    spill: str | None
    #: How the sideband is opened, and on which of these CPUs it is missing.
    sideband: Kind | None = None
    sideband_cpus: list[int] = []


class AddSideband(msgspec.Struct, frozen=True):
    """The staged fds, one for each of `cpus`, tell of processes that come and go, beside the
    recording: the first on each CPU owns a ring of wire.sideband.RING_BYTES there, which takes the
    place of one that was there before. What runs already is told by AddProcesses.
    """

    name: Name
    kind: Kind
    cpus: list[Cpu]


class Collect(msgspec.Struct, frozen=True):
    """End what policy says is over; with `dry_run` only tell."""

    dry_run: bool = False


class Collected(msgspec.Struct, frozen=True):
    recordings: list[Over]


class Upgrade(msgspec.Struct, frozen=True):
    """Go on with the code of this package directory, run by this Python."""

    python: Text
    package: Text


class Started(msgspec.Struct, frozen=True):
    """Ids of the recording and of its kinds, in the order of the request."""

    id: int
    name: str
    events: list[int]


class Named(msgspec.Struct, frozen=True):
    """A recording by its name."""

    name: Name


class Add(msgspec.Struct, frozen=True):
    """Let the staged fds join a recording that runs. `longest`: as in Spill."""

    name: Name
    kinds: list[Kind]
    slots: list[Slot]
    longest: Annotated[int, msgspec.Meta(ge=8, le=65536)] = 65536


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


class Recordings(msgspec.Struct, frozen=True):
    recordings: list[RecordingInfo]


class EventId(msgspec.Struct, frozen=True):
    """A kind of event by its id, whatever its CPUs."""

    id: int


class EventShown(msgspec.Struct, frozen=True):
    """A kind of event, and the name of the recording that it belongs or belonged to."""

    recording: str
    kind: Kind


class Stat(msgspec.Struct, frozen=True):
    name: str
    events: list[EventCounts]


class Snapshot(msgspec.Struct, frozen=True):
    """What a snapshot will hold; its rings are asked for one by one with CopyRing.

    The rings stay as they are asked for here, even when the recording is claimed meanwhile.
    `lost`, of rings that do not overwrite: for each of `cpus` how many records the kernel had no room
    for since the events were opened, by its own counters; null: the events do not count them.
    """

    recording: RecordingInfo
    kinds: list[KindInSnapshot]
    cpus: list[int]
    sideband: Told | None = None
    lost: list[int | None] = []


class CopyRing(msgspec.Struct, frozen=True):
    """Copy one ring of the snapshot that this connection began: an index into `cpus`."""

    index: Count


class Status(msgspec.Struct, frozen=True):
    """`problems`: what the broker could not do and goes on without, a sentence each. `kinds`: of
    event; `events` counts one for each kind and CPU.
    """

    socket: str
    log: str
    version: str
    recordings: int
    events: int
    ring_bytes: int
    broker: ProcessStatus
    keeper: ProcessStatus
    state: str
    state_bytes: int
    spill_bytes: int
    log_bytes: int
    users: list[Usage]
    sandbox: str
    problems: list[str]
    kinds: int = 0


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
    "SetAccess": (SetAccess, Nothing),
    "Expire": (Expire, Nothing),
    "Collect": (Collect, Collected),
    "Upgrade": (Upgrade, Nothing),
    "GetMissing": (Nothing, Missing),
    "Rejoin": (Rejoin, Nothing),
    "AddSideband": (AddSideband, Nothing),
    "AddProcesses": (Named, Nothing),
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
#: For who is neither root nor the owner of the instance.
GUEST_STAGED = 4096
FDS_PER_STAGE = MAX_FDS - 3
