"""Opens the events of a recording with the caller's own rights; nothing is registered here."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

from perfkeep import events
from perfkeep.abi.perf_event import Attr, Flag, OpenFlag, ReadFormat, Software, Type
from perfkeep.client.pids import check_known, check_pids, of_process
from perfkeep.errors import PerfkeepError, SpecError, UsageError
from perfkeep.events import Event
from perfkeep.kernel import cgroups, cpus, perf_fd, refusal, tracefs
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.pids import pid_namespace
from perfkeep.kernel.syscalls import perf_event_open
from perfkeep.wire import messages

_NO_FLAGS = OpenFlag(0)


@dataclass(frozen=True, slots=True)
class Scope:
    """The CPUs that a recording is on, and the tasks that it follows there."""

    cpus: tuple[int, ...]
    target: messages.Target


@dataclass(frozen=True, slots=True)
class Wanted:
    """One event to record, and the filter for its samples when it is a tracepoint."""

    event: Event
    filter: str | None = None


def wanted(specs: str | Sequence[str | tuple[str, str | None]]) -> list[Wanted]:
    """Parse a spec, or several, each alone or with the filter for the tracepoints that it names.

    Raises:
        SpecError: the part that is wrong.
        UsageError: a filter, but no tracepoint.
    """
    found: list[Wanted] = []
    groups = 0
    for spec in [specs] if isinstance(specs, str) else specs:
        text, expression = (spec, None) if isinstance(spec, str) else spec
        parsed = events.parse(text)
        if expression is not None and not any(event.tracepoint for event in parsed):
            raise UsageError(f"a filter needs a tracepoint, and {text!r} names none")
        for event in parsed:
            # Groups are numbered within one spec; here they must stay apart.
            group = None if event.group is None else event.group + groups
            found.append(Wanted(replace(event, group=group), event.tracepoint and expression))
        groups = 1 + max((one.event.group or 0 for one in found), default=0)
    if not found:
        raise UsageError("no event was named", hint="name one like sched:sched_switch")
    return found


def distinct(events: list[Wanted]) -> list[Wanted]:
    """The same events.

    Raises:
        UsageError: two of them are alike. perf records such an event twice; here both would have one
            ring and one name, with every sample in it twice.
    """
    for number, one in enumerate(events):
        if one in events[:number]:
            raise UsageError(
                f"{one.event.text} is named twice, which would record each sample twice"
            )
    return events


def counted_in_software(texts: Iterable[str]) -> int:
    """How many of these events are; see events.told_apart. What was made otherwise than by text, is
    not.
    """
    count = 0
    for text in texts:
        with suppress(PerfkeepError):
            count += sum(one.attr.counted_in_software for one in events.parse(text))
    return count


@dataclass(slots=True)
class Opened:
    """Open events, ready to be staged: `slots` and `fds` belong together."""

    kinds: list[messages.Kind]
    slots: list[messages.Slot]
    fds: list[OwnedFd]
    notes: list[str]

    def close(self) -> None:
        for fd in self.fds:
            fd.close()


def scope(
    cpu_list: Sequence[int] | None = None, pid: int | None = None, cgroup: str | None = None
) -> Scope:
    """Check what is to be recorded.

    Raises:
        UsageError: CPUs that are offline or absent, a pid and a cgroup at once.
        PerfkeepError: ESRCH: there is no such process.
    """
    if pid is not None and cgroup is not None:
        raise UsageError("a recording is of a process or of a cgroup, not of both")
    if cgroup == "":
        raise UsageError("no cgroup was named", hint="/ is the one that holds all tasks")
    everyone = messages.Target(cgroup=cgroup, pid_namespace=pid_namespace())
    target = everyone if pid is None else of_process(pid)
    if pid is not None and not os.path.exists(f"/proc/{pid}"):
        raise PerfkeepError(errno.ESRCH, f"there is no process {pid}")
    chosen = cpus.online() if cpu_list is None else cpus.check_online(cpu_list)
    return Scope(chosen, target)


def scope_again(info: messages.RecordingInfo) -> Scope:
    """The scope of a recording: what joins it follows the same tasks. On CPUs that are offline it
    joins when they come back.

    Raises:
        UsageError: the tasks are not known.
    """
    check_known(info.target)
    of_all = {cpu for event in info.events for cpu in event.cpus}
    on = tuple(sorted(of_all.intersection(cpus.online()) or of_all))
    return Scope(cpus.check_online(on), info.target)


def kind_of(event: Event, attr: Attr, filter: str | None = None) -> messages.Kind:
    """What the registry remembers of an event."""
    tracepoint = event.tracepoint and messages.Tracepoint(
        event.tracepoint.system, event.tracepoint.name, event.tracepoint.id, event.tracepoint.format
    )
    return messages.Kind(event.text, event.name, attr.pack(), tracepoint, filter, event.group)


def open_one(
    event: Event, attr: Attr, pid: int, cpu: int, group: int = -1, flags: OpenFlag = _NO_FLAGS
) -> OwnedFd:
    """perf_event_open(2), once more without what an older kernel lacks.

    Raises:
        KernelRefused: in words.
    """
    try:
        return _open(event, attr, pid, cpu, group, flags)
    except OSError as error:
        where = f"CPU {cpu}" if pid < 0 else f"task {pid}"
        raise refusal.of_open(error, event.text, where, attr, pid) from error


def _open(
    event: Event, attr: Attr, pid: int, cpu: int, group: int, flags: OpenFlag = _NO_FLAGS
) -> OwnedFd:
    if event.path is None:
        return _open_known(attr, pid, cpu, group, flags)
    # The kernel reads the path of a probe from our memory while it opens the event.
    path = ctypes.create_string_buffer(os.fsencode(event.path))
    return _open_known(replace(attr, config1=ctypes.addressof(path)), pid, cpu, group, flags)


def _open_known(attr: Attr, pid: int, cpu: int, group: int, flags: OpenFlag) -> OwnedFd:
    try:
        return perf_event_open(attr, pid, cpu, group, flags)
    except OSError as error:
        # PERF_FORMAT_LOST came with Linux 6.0 (119a784c8127).
        if error.errno != errno.EINVAL or not attr.read_format & ReadFormat.LOST:
            raise
        without = replace(attr, read_format=attr.read_format & ~ReadFormat.LOST)
        return perf_event_open(without, pid, cpu, group, flags)


class _Opener:
    """Opens each kind of event for each task on each CPU; knows who leads a group."""

    def __init__(self, to: Scope, parsed: Sequence[Event], attrs: list[Attr]) -> None:
        self.to = to
        self.parsed = parsed
        self.attrs = attrs
        self.slots: list[messages.Slot] = []
        self.fds: list[OwnedFd] = []
        self.notes: list[str] = []
        self._leaders: dict[tuple[int, int, int], OwnedFd] = {}

    def open_all(self, task: int, flags: OpenFlag) -> None:
        """Every kind on every CPU for one task (-1: all; with PID_CGROUP: a cgroup's fd)."""
        for cpu in self.to.cpus:
            for index, event in enumerate(self.parsed):
                if event.cpus is not None and cpu not in event.cpus:
                    continue
                key = (event.group, task, cpu) if event.group is not None else None
                leader = self._leaders.get(key) if key else None
                fd = self._open(index, task, cpu, leader.fileno() if leader else -1, flags)
                self.fds.append(fd)
                self.slots.append(messages.Slot(index, cpu))
                if key and leader is None:
                    self._leaders[key] = fd

    def _open(self, index: int, task: int, cpu: int, leader: int, flags: OpenFlag) -> OwnedFd:
        event = self.parsed[index]
        try:
            return _open(event, self.attrs[index], task, cpu, leader, flags)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM) and self._leave_kernel_out(index):
                return self._open(index, task, cpu, leader, flags)
            if error.errno == errno.ESRCH:
                raise
            task = -1 if flags & OpenFlag.PID_CGROUP else task
            where = f"CPU {cpu} of {self.to.target}"
            raise refusal.of_open(error, event.text, where, self.attrs[index], task) from error

    def _leave_kernel_out(self, index: int) -> bool:
        """As `perf` does: who may not look into the kernel gets user space."""
        attr = self.attrs[index]
        opened = any(slot.kind == index for slot in self.slots)
        if opened or self.to.target.pids is None or attr.flags & Flag.EXCLUDE_KERNEL:
            return False
        self.attrs[index] = attr.with_flags(Flag.EXCLUDE_KERNEL | Flag.EXCLUDE_HV)
        self.notes.append(
            f"{self.parsed[index].text}: the kernel is left out, as this user may not look into it"
        )
        return True

    def close(self) -> None:
        for fd in self.fds:
            fd.close()


def threads(pid: int, seen: set[int]) -> Iterator[int]:
    """Threads of a process that were not seen before, until there are no more.

    One that starts while others are opened is a child of one that is open already, and
    inherited, or it is found by the next look.
    """
    while True:
        try:
            new = {int(name) for name in os.listdir(f"/proc/{pid}/task")} - seen
        except FileNotFoundError:
            return
        if not new:
            return
        seen |= new
        yield from sorted(new)


@contextmanager
def tasks(target: messages.Target) -> Iterator[tuple[list[int], OpenFlag]]:
    """The tasks to open an event for, as perf_event_open(2) wants them named."""
    check_pids(target)
    if target.cgroup is not None:
        with cgroup_directory(target.cgroup) as directory:
            yield [directory.fileno()], OpenFlag.PID_CGROUP
    elif target.pids is not None:
        found = [thread for pid in target.pids for thread in threads(pid, set())]
        if not found:
            raise PerfkeepError(errno.ESRCH, f"{target} has ended")
        yield found, OpenFlag(0)
    else:
        yield [-1], OpenFlag(0)


@contextmanager
def cgroup_time(target: messages.Target) -> Iterator[None]:
    """Have the kernel keep the time of a cgroup while a recording of it is switched on.

    Linux (6.18) keeps it on a CPU only while an event of a cgroup is enabled there. The first one
    takes the time as it stood when the last one ended, or as 0, and the kernel then adds all that
    has passed since (perf_cgroup_event_enable() leaves perf_cgroup_info.timestamp as it is). So an
    event that counts nothing goes first. Where it is refused, nothing is different.
    """
    with ExitStack() as stack:
        if target.cgroup is not None:
            with suppress(OSError), tasks(target) as (directories, flags):
                attr = Attr(type=Type.SOFTWARE, config=Software.DUMMY)
                for cpu in cpus.online():
                    fd = perf_event_open(attr, directories[0], cpu, -1, flags)
                    stack.callback(fd.close)
        yield


def open_events(
    chosen: Sequence[Wanted], to: Scope, call_chains: bool = False, others: int = 0
) -> Opened:
    """Open each kind of event on each CPU of the target, disabled.

    Args:
        others: so many kinds has the recording already that are counted in software.

    Raises:
        KernelRefused: the kernel said no, in words; nothing stays open.
        SpecError: the filter is not one.
    """
    parsed = [one.event for one in chosen]
    inherit = to.target.pids is not None
    attrs = [events.for_flight_ring(event, call_chains, inherit) for event in parsed]
    if not to.target.every_task:
        attrs = [_with_switches(*one) for one in zip(parsed, attrs, strict=True)]
    attrs = events.told_apart(attrs, others)
    opener = _Opener(to, parsed, attrs)
    try:
        _open_target(opener, to)
        _set_filters(opener, [one.filter for one in chosen])
        used = {slot.kind for slot in opener.slots}
        unused = [event.text for i, event in enumerate(parsed) if i not in used]
        if unused:
            raise UsageError(f"{unused[0]} exists on none of the CPUs {cpus.format_list(to.cpus)}")
    except BaseException:
        opener.close()
        raise
    kinds = [
        kind_of(one.event, attr, one.filter) for one, attr in zip(chosen, opener.attrs, strict=True)
    ]
    return Opened(kinds, opener.slots, opener.fds, opener.notes)


def _with_switches(event: Event, attr: Attr) -> Attr:
    """Have the kernel write when the tasks are switched in: a sample of sched_switch is taken in the
    task that is switched out, and only if that is one of them.
    """
    tracepoint = event.tracepoint
    if tracepoint is None or (tracepoint.system, tracepoint.name) != ("sched", "sched_switch"):
        return attr
    return attr.with_flags(Flag.CONTEXT_SWITCH)


def _open_target(opener: _Opener, to: Scope) -> None:
    target = to.target
    check_pids(target)
    if target.cgroup is not None:
        with cgroup_directory(target.cgroup) as directory:
            opener.open_all(directory.fileno(), OpenFlag.PID_CGROUP)
    elif target.pids is None:
        opener.open_all(-1, OpenFlag(0))
    else:
        for thread in (thread for pid in target.pids for thread in threads(pid, set())):
            before = len(opener.fds)
            try:
                opener.open_all(thread, OpenFlag(0))
            except ProcessLookupError:
                _forget(opener, before)
        if not opener.fds:
            raise PerfkeepError(errno.ESRCH, f"{target} has ended")


def _forget(opener: _Opener, keep: int) -> None:
    """A thread ended while it was opened: drop what there is of it."""
    for fd in opener.fds[keep:]:
        fd.close()
    del opener.fds[keep:], opener.slots[keep:]


def cgroup_directory(path: str) -> OwnedFd:
    """A cgroup's directory, by its path or by its name below the cgroup2 mount.

    Raises:
        PerfkeepError: ENOENT: no such cgroup.
    """
    directory = cgroups.find(path)
    if directory is None:
        raise PerfkeepError(
            errno.ENOENT,
            f"{path!r} is no cgroup that perf events can follow",
            hint=f"name one below {' or '.join(cgroups.roots()) or 'a mount of cgroup2'}",
        )
    return OwnedFd(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def _set_filters(opener: _Opener, filters: list[str | None]) -> None:
    for slot, fd in zip(opener.slots, opener.fds, strict=True):
        expression = filters[slot.kind]
        if expression is None:
            continue
        try:
            perf_fd.set_filter(fd.fileno(), expression)
        except OSError as error:
            name = opener.parsed[slot.kind].name
            raise SpecError(
                f"the kernel does not take the filter {expression!r} for {name}",
                expression,
                hint=f"the fields it may use are in {tracefs.root()}/events/{name.replace(':', '/')}/format",
            ) from error
