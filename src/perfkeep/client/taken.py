"""The perf events of another process: our own fds for them, their CPUs, their rings.

Nothing is changed about them. The kernel tells neither the CPU of an event nor whose ring it
writes into, but it refuses to let two events share a ring unless CPU, clock and direction agree:
so events of our own that record nothing are pointed at each ring until one is accepted, and
closed again. Measured on 6.18: that works for the owner of a ring and for the events redirected
into it, and an event of the caller's own task, which anybody may open, is enough.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product

from perfkeep.abi.perf_event import (
    DATA_HEAD_OFFSET,
    Attr,
    ClockId,
    Flag,
    Ioctl,
    Software,
    Type,
)
from perfkeep.errors import KernelRefused, PerfkeepError
from perfkeep.kernel import cpus, perf_fd, privileges, sysctl
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.syscalls import detach_output, perf_event_open, pidfd_getfd

_WHAT = "anon_inode:[perf_event]"
_MAPPING = re.compile(rf"([0-9a-f]+)-([0-9a-f]+) (....) .* {re.escape(_WHAT)}$")
#: Since Linux 6.17 a redirected event cannot be mapped. Before, it can, and leaves its ring when
#: its last mapping goes: so it is never tried, and the first event on each side owns the ring.
_TELLS_REDIRECTED = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 17)
#: None is the scheduler's clock, which an event gets that asks for no other.
_CLOCKS = (None, *ClockId)


@dataclass(frozen=True, slots=True)
class Side:
    """On which side of a ring an event writes: what must agree for two to share one."""

    cpu: int
    clock: ClockId | None
    backward: bool


class TakenRing:
    """A ring, kept alive by a mapping of our own."""

    __slots__ = ("bytes", "mapping", "overwrites")

    def __init__(self, mapping: mmap.mmap, overwrites: bool) -> None:
        self.mapping = mapping
        self.bytes = len(mapping) - mmap.PAGESIZE
        self.overwrites = overwrites

    def newest(self, backward: bool, most: int) -> tuple[bytes, bool]:
        """Up to `most` bytes of records, and whether they begin in the middle of one.

        backward: from the newest record to the oldest; forward: the other way round.
        """
        (head,) = struct.unpack_from("=Q", self.mapping, DATA_HEAD_OFFSET)
        data = self.mapping[mmap.PAGESIZE :]
        written = -head & (1 << 64) - 1 if backward else head
        length, at = min(written, self.bytes, most), head % self.bytes
        whole = length == written
        if backward:
            return (data[at:] + data[:at])[:length], not whole
        straight = data[at:] + data[:at]
        return straight[len(straight) - length :], not whole

    def close(self) -> None:
        self.mapping.close()


@dataclass(slots=True)
class TakenEvent:
    """One event of theirs. `ring` only for the one that owns a ring."""

    fd: OwnedFd
    kernel_id: int
    side: Side | None = None
    ring: TakenRing | None = None

    def close(self) -> None:
        self.fd.close()
        if self.ring is not None:
            self.ring.close()


@dataclass(slots=True)
class RingUsers:
    """One ring: the event that owns it, then those that are redirected into it."""

    side: Side
    ring: TakenRing
    events: list[TakenEvent]


@dataclass(slots=True)
class Taken:
    """What a process has.

    Attributes:
        known: kernel ids of events that someone has told of.
        rings: per CPU in the order in which their owners were opened.
        bare: events without a ring, or whose tasks have ended.
        homeless: events with a ring that belongs to no CPU, as they follow a task.
    """

    pid: int
    known: frozenset[int]
    rings: list[RingUsers] = field(default_factory=list)
    bare: int = 0
    homeless: int = 0
    events: list[TakenEvent] = field(default_factory=list)

    def close(self) -> None:
        """Let go of everything; what nobody else holds ends."""
        for event in self.events:
            event.close()


# --- their fds ----------------------------------------------------------------------------------


def _not_allowed(pid: int) -> KernelRefused:
    held = "CAP_SYS_PTRACE" in privileges.held()
    if held:
        why = "a security module, or the user namespace of one of both, forbids it"
        hint = "adopt a process that you started: perf record -o FILE …, then perfkeep adopt PID"
    else:
        why = "it is another user's or has more capabilities, and CAP_SYS_PTRACE is not held"
        hint = privileges.again_with("CAP_SYS_PTRACE")
    words = f"process {pid} may not be traced: {why}"
    with suppress(OSError):
        scope = sysctl.read("kernel.yama.ptrace_scope")
        if scope != "0":
            words += f"; kernel.yama.ptrace_scope = {scope} allows the same user only its children"
    return KernelRefused(errno.EPERM, words, hint=hint)


def no_process(pid: int) -> PerfkeepError:
    return PerfkeepError(errno.ESRCH, f"there is no process {pid}")


def _numbers(pid: int) -> list[int]:
    """Of the fds that are perf events."""
    found = []
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                if os.readlink(f"/proc/{pid}/fd/{name}") == _WHAT:
                    found.append(int(name))
    except PermissionError as error:
        raise _not_allowed(pid) from error
    except (FileNotFoundError, ProcessLookupError) as error:
        raise no_process(pid) from error
    return sorted(found)


def _take_fds(pid: int, into: list[TakenEvent]) -> None:
    """One fd for each event, however many the process has for it."""
    if pid <= 0:
        raise no_process(pid)
    try:
        pidfd = OwnedFd(os.pidfd_open(pid))
    except (ProcessLookupError, ValueError, OverflowError) as error:
        raise no_process(pid) from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise PerfkeepError(errno.ESRCH, f"{pid} is a thread and no process") from error
    with pidfd:
        seen = set()
        for number in _numbers(pid):
            try:
                fd = pidfd_getfd(pidfd.fileno(), number)
            except PermissionError as error:
                raise _not_allowed(pid) from error
            except ProcessLookupError as error:
                raise no_process(pid) from error
            except OSError as error:
                if error.errno == errno.EBADF:  # closed since
                    continue
                raise
            kernel_id = perf_fd.check(fd.fileno())
            if kernel_id in seen:
                fd.close()
                continue
            seen.add(kernel_id)
            into.append(TakenEvent(fd, kernel_id))
    into.sort(key=lambda event: event.kernel_id)


# --- their CPUs ---------------------------------------------------------------------------------


class Prober:
    """Finds out on which side of a ring events write."""

    def __init__(self) -> None:
        self._probes: dict[Side, OwnedFd] = {}
        self._last: Side | None = None

    def side(self, fd: int) -> Side | None:
        """None: an event that follows its task over all CPUs."""
        for side in self._order():
            if self._fits(side, fd):
                self._last = side
                return side
        return None

    def of_cpu(self, event: TakenEvent) -> bool:
        """True if an event that leads its group belongs to a CPU, False if it follows a task there.

        The kernel groups events of one context only, so a probe of the CPU joins the first and not
        the second. Of a member of a group this is False, too. A caller who may not open events of a
        CPU cannot trace a process that has some.
        """
        assert event.side is not None
        try:
            _open_probe(event.side, -1, event.fd.fileno()).close()
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EACCES, errno.EPERM):
                return False
            raise
        return True

    def _order(self) -> Iterable[Side]:
        """All that there are, those like the last one first."""
        last = self._last
        ways = list(product(_CLOCKS, (False, True)))
        if last is not None:
            ways.sort(key=lambda way: way != (last.clock, last.backward))
        for (clock, backward), cpu in product(ways, cpus.online()):
            yield Side(cpu, clock, backward)

    def _fits(self, side: Side, fd: int) -> bool:
        probe = self._probes.get(side)
        if probe is None:
            probe = self._probes[side] = _open_probe(side)
        try:
            fcntl.ioctl(probe.fileno(), Ioctl.SET_OUTPUT, fd)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return False
            raise
        detach_output(probe.fileno())
        return True

    def close(self) -> None:
        for probe in self._probes.values():
            probe.close()


def _open_probe(side: Side, task: int = 0, leader: int = -1) -> OwnedFd:
    flags = Flag.DISABLED | Flag.EXCLUDE_KERNEL | Flag.EXCLUDE_HV
    if side.backward:
        flags |= Flag.WRITE_BACKWARD
    if side.clock is not None:
        flags |= Flag.USE_CLOCKID
    attr = Attr(
        type=Type.SOFTWARE, config=Software.DUMMY, flags=flags, clockid=int(side.clock or 0)
    )
    return perf_event_open(attr, task, side.cpu, leader)


# --- their rings --------------------------------------------------------------------------------


def _sizes(pid: int) -> dict[int, set[bool]]:
    """Bytes of data of the rings that a process has mapped → whether such rings overwrite: they do
    if they are mapped read-only.
    """
    sizes: dict[int, set[bool]] = {}
    try:
        with open(f"/proc/{pid}/maps") as file:
            lines = file.read().splitlines()
    except PermissionError as error:
        raise _not_allowed(pid) from error
    except (FileNotFoundError, ProcessLookupError) as error:
        raise no_process(pid) from error
    for line in lines:
        if match := _MAPPING.match(line):
            size = int(match[2], 16) - int(match[1], 16) - mmap.PAGESIZE
            sizes.setdefault(size, set()).add(match[3][1] != "w")
    return sizes


def _map(fd: int, sizes: dict[int, set[bool]], backward: bool) -> TakenRing | None:
    """The ring of its owner; None for an event that is redirected into another's.

    An event that has a ring takes no size but that of the ring, so none is made by trying.
    """
    for size, kinds in sizes.items():
        # Where both kinds have one size, as with `perf record --overwrite`, it is those that are
        # written backward that overwrite: nobody could read such a ring once it has stopped.
        overwrites = backward if len(kinds) > 1 else True in kinds
        try:
            length = size + mmap.PAGESIZE
            return TakenRing(mmap.mmap(fd, length, mmap.MAP_SHARED, mmap.PROT_READ), overwrites)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return None
            if error.errno != errno.EINVAL:
                raise
    return None


def _find_rings(taken: Taken) -> None:
    sizes = _sizes(taken.pid)
    prober = Prober()
    try:
        for event in taken.events:
            if perf_fd.hung_up(event.fd.fileno()):
                taken.bare += 1
                continue
            event.side = prober.side(event.fd.fileno())
            if event.side is None:
                taken.homeless += 1
            else:
                _place(taken, event, sizes)
    finally:
        prober.close()


def _place(taken: Taken, event: TakenEvent, sizes: dict[int, set[bool]]) -> None:
    """Find the event's ring. Which one it is redirected into nobody tells: the last that was
    opened before it on its side, as whoever redirects an event has a ring for it already."""
    assert event.side is not None
    shared = [one for one in taken.rings if one.side == event.side]
    known = event.kernel_id in taken.known
    if not _TELLS_REDIRECTED:
        # Perf's rings for its own needs lie beside those that its file is made of.
        shared = [one for one in shared if (one.events[0].kernel_id in taken.known) == known]
    if _TELLS_REDIRECTED or not shared:
        event.ring = _map(event.fd.fileno(), sizes, event.side.backward)
    if event.ring is not None:
        taken.rings.append(RingUsers(event.side, event.ring, [event]))
    elif shared:
        shared[-1].events.append(event)
    else:
        taken.homeless += 1


def follow_tasks(rings: Iterable[RingUsers]) -> bool:
    """True if the events that write into these rings follow tasks, False if they belong to CPUs."""
    prober = Prober()
    try:
        return not any(prober.of_cpu(event) for ring in rings for event in ring.events)
    finally:
        prober.close()


def take(pid: int, known: frozenset[int] = frozenset()) -> Taken:
    """Our own fds for a process's perf events, each once, in the order of their opening.

    Args:
        known: kernel ids of events that share rings with each other only.

    Raises:
        PerfkeepError: ESRCH: no such process · ENOENT: it has no perf events.
        KernelRefused: EPERM: this process may not be traced by the caller.
    """
    taken = Taken(pid, known)
    try:
        _take_fds(pid, taken.events)
        if not taken.events:
            raise PerfkeepError(errno.ENOENT, f"process {pid} has no perf events open")
        _find_rings(taken)
    except BaseException:
        taken.close()
        raise
    return taken
