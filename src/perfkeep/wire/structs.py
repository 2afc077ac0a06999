"""What messages are made of: events, rings, owners, recordings as they are described.

Times are nanoseconds. Everything is checked as it arrives: types, lengths and ranges.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Cpu = Annotated[int, msgspec.Meta(ge=-1, lt=65536)]
Pid = Annotated[int, msgspec.Meta(gt=0, lt=2**31)]
Id = Annotated[int, msgspec.Meta(ge=0, lt=2**32 - 1)]
Mode = Annotated[int, msgspec.Meta(ge=0, le=0o777)]
RingKind = Literal["backward", "forward"]
State = Literal["running", "disabled", "ended"]
Enabled = Literal["per_cpu", "per_task"]


class Tracepoint(msgspec.Struct, frozen=True):
    """A tracepoint as tracefs described it when it was opened."""

    system: Text
    name: Text
    id: Count
    format: Annotated[str, msgspec.Meta(max_length=1 << 17)]


class Kind(msgspec.Struct, frozen=True):
    """One kind of event: what is the same about it on every CPU.

    `event` is the spec that opens it again, `attr` the bytes of struct perf_event_attr
    (base64 on the wire), `filter` what PERF_EVENT_IOC_SET_FILTER was given. Kinds of one start
    that have the same `group` are scheduled together; the first of them leads.
    """

    event: Text
    name: Text
    attr: Annotated[bytes, msgspec.Meta(min_length=64, max_length=4096)]
    tracepoint: Tracepoint | None = None
    filter: Text | None = None
    group: Count | None = None


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


class RingCopied(msgspec.Struct, frozen=True):
    """The copy rides along as a sealed memfd of `bytes`, in one piece.

    backward: offset 0 is `head_before`, records go from the newest to the oldest.
    forward: the last byte lies before `head_before`, records go from the oldest to the newest.
    `unread`: of a ring that does not overwrite, how many of the newest bytes its reader has not
    consumed. For them the kernel has no room but the rest of the ring.
    """

    cpu: int
    bytes: int
    head_before: int
    head_after: int
    unread: int | None = None


class Access(msgspec.Struct, frozen=True):
    """Who may what. None: as it is, or for a new recording the caller's own and 0600.

    `mode`, Unix style: r is to see, to count and to take snapshots; w is to be given the events
    themselves, which is control. Only the owner and root may end a recording or change this.
    """

    uid: Id | None = None
    gid: Id | None = None
    mode: Mode | None = None


class Spill(msgspec.Struct, frozen=True):
    """Keep a copy of the rings in files, written every so often.

    The files were made by the client and are the last fds of the request: the meta file, and one
    for each CPU in the order of the CPUs. `directory` is only for people to read. `longest`: no
    record of these events is longer, in bytes.
    """

    directory: Text
    every_ns: Annotated[int, msgspec.Meta(ge=10**8, le=10**9 * 86400)]
    longest: Annotated[int, msgspec.Meta(ge=8, le=65536)] = 65536


class Over(msgspec.Struct, frozen=True):
    """A recording that is over, and why."""

    name: str
    why: str


class Program(msgspec.Struct, frozen=True):
    """A process that opened events, and the name it had.

    `per_task`: they follow tasks over the CPUs, and the kernel does not name these.
    """

    pid: int
    command: Text
    per_task: bool = False


class Target(msgspec.Struct, frozen=True):
    """The tasks that a recording follows. At most one of `pids`, `cgroup` and `program` is set; with none
    it is every task.

    `pids`: these processes with all their threads, and what they fork. `cgroup`: a path.
    `program`: the events were opened by it and adopted; each belongs to a CPU or follows tasks.
    `pid_namespace`: the inode of the PID namespace whose numbers the pids are, those in samples, too.
    """

    pids: Annotated[list[Pid], msgspec.Meta(min_length=1, max_length=4096)] | None = None
    cgroup: Text | None = None
    program: Program | None = None
    pid_namespace: Count | None = None

    @property
    def every_task(self) -> bool:
        """True if its events belong to CPUs alone, as far as the kernel says."""
        return self.cgroup is None and not self.per_task

    @property
    def per_task(self) -> bool:
        """True if its events follow tasks, one for each CPU on which these may run."""
        return self.pids is not None or (self.program is not None and self.program.per_task)

    def __str__(self) -> str:
        if self.pids is not None:
            return f"pid {','.join(str(pid) for pid in self.pids)}"
        if self.cgroup is not None:
            return f"cgroup {self.cgroup}"
        if self.program is not None:
            return f"as opened by process {self.program.pid} ({self.program.command})"
        return "all tasks"


class Owner(msgspec.Struct, frozen=True):
    """Who made a recording, by the kernel's word (SO_PEERCRED) at the time."""

    uid: int
    gid: int
    pid: int
    command: str


class EventInfo(msgspec.Struct, frozen=True):
    """One kind of event in a list.

    `filter`: the expression that its samples match. `call_chains`: whether they have call chains.
    """

    id: int
    event: str
    cpus: list[int]
    filter: str | None = None
    call_chains: bool = False


class Gap(msgspec.Struct, frozen=True):
    """A period of which there is no data, in CLOCK_REALTIME.

    `until_ns` None: it still lasts. `cpus` None: on all of them, because both daemons died: what
    the rings held is lost as well, and counts begin again.
    """

    since_ns: int
    until_ns: int | None
    why: str
    cpus: list[int] | None = None


#: A recording keeps no more gaps; the oldest are dropped first.
MOST_GAPS = 64


class SpillInfo(msgspec.Struct, frozen=True):
    """How the copy on disk stands. What was recorded until `last_ns` of CLOCK_REALTIME is in it; 0
    before the first time.
    """

    directory: str
    every_ns: int
    last_ns: int
    bytes: int
    problem: str


class RecordingInfo(msgspec.Struct, frozen=True):
    """One recording in a list. `created_ns` and `expires_ns` are CLOCK_REALTIME.

    `offline`: CPUs whose events died with them and wait for their return. `problem`: why events
    could not be opened again. `sideband`: CPUs of which the kernel tells who comes and goes.
    """

    name: str
    id: int
    state: State
    created_ns: int
    owner: Owner
    mode: int
    gid: int
    ring: Ring
    target: Target
    events: list[EventInfo]
    expires_ns: int | None = None
    gaps: list[Gap] = []
    offline: list[int] = []
    problem: str = ""
    spill: SpillInfo | None = None
    sideband: list[int] = []


class Counts(msgspec.Struct, frozen=True):
    """What read(2) of events gives, summed over the events of one CPU."""

    cpu: int
    value: int
    time_enabled_ns: int
    time_running_ns: int
    lost: int


class EventCounts(msgspec.Struct, frozen=True):
    """The counts of one kind of event, raw for each CPU, and what they add up to.

    `enabled`: whose time `time_enabled_ns` of a CPU is. per_cpu: the CPU's own. per_task: that of
    the tasks, on whatever CPU they run; each CPU's event is enabled then, and one of them counts.
    `scales`: the event may have to wait for a hardware counter, so a count is an estimate where
    the event ran for less than it was enabled.
    `unit`: of the count: nanoseconds of a clock; None: events.
    `timed`: the event was opened so that its times can be read; otherwise they are 0.
    """

    id: int
    event: str
    per_cpu: list[Counts]
    enabled: Enabled = "per_cpu"
    scales: bool = True
    unit: Literal["ns"] | None = None
    timed: bool = True

    @property
    def value(self) -> int:
        """The raw count of all CPUs."""
        return sum(cpu.value for cpu in self.per_cpu)

    @property
    def lost(self) -> int:
        """Samples that the kernel had no room for."""
        return sum(cpu.lost for cpu in self.per_cpu)

    @property
    def time_enabled_ns(self) -> int:
        """The time to count: CPU time of the tasks, or time of all CPUs."""
        times = [cpu.time_enabled_ns for cpu in self.per_cpu]
        return max(times, default=0) if self.enabled == "per_task" else sum(times)

    @property
    def time_running_ns(self) -> int:
        """The part of it in which the event did count."""
        return sum(cpu.time_running_ns for cpu in self.per_cpu)

    @property
    def counted(self) -> float | None:
        """The share of the time that was counted; 1.0 where the count needs no estimate, None where
        it needs one and the event has no times.
        """
        enabled, running = self.time_enabled_ns, self.time_running_ns
        if not self.timed:
            return None if self.scales else 1.0
        if enabled and not running:
            return 0.0
        share = running / enabled if enabled and self.scales else 1.0
        # The CPUs are read one after another, while time goes on.
        return share if share < _ALL_OF_IT else 1.0

    @property
    def estimate(self) -> int | None:
        """The count, scaled where only a part of the time was counted; None: it was not counted, or
        there are no times to say for how long.
        """
        return round(self.value / self.counted) if self.counted else None


_ALL_OF_IT = 0.9999


class KindInSnapshot(msgspec.Struct, frozen=True):
    """A kind of event with the kernel's ids of its events, per CPU."""

    id: int
    kind: Kind
    kernel_ids: dict[int, list[int]]


class ProcessStatus(msgspec.Struct, frozen=True):
    """What one of the daemons takes of the machine."""

    pid: int
    rss_bytes: int
    cpu_ms: int


class Usage(msgspec.Struct, frozen=True):
    """What one user's recordings take. None: there is no limit."""

    uid: int
    recordings: int
    events: int
    ring_bytes: int
    most_recordings: int | None
    most_events: int | None
    most_ring_bytes: int | None


class Told(msgspec.Struct, frozen=True):
    """What the sideband of a recording told of processes: records of `bytes` in a sealed memfd that
    rides along. `complete`: whatever lives or has ended of late on its CPUs is in them.
    """

    event: KindInSnapshot
    bytes: int
    complete: bool
