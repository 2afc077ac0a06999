"""One perf event: opened here, made persistent, reopened by id, given back."""

from __future__ import annotations

import fcntl
import mmap
import threading
from functools import cached_property
from typing import Final, NamedTuple

from perfkeep.abi.perf_event import UNCLAIM_RING_BYTES, Attr, Flag, Ioctl
from perfkeep.client.connection import Shared, call
from perfkeep.errors import UsageError
from perfkeep.kernel import perf_fd
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.perf_fd import Reading
from perfkeep.kernel.pids import pid_namespace
from perfkeep.wire import messages

ANY_CPU: Final = -1
ALL_TASKS: Final = -1
CALLING_THREAD: Final = 0
_EVERY_TASK: Final = messages.Target()


class Ids(NamedTuple):
    """The kernel's id of an event (PERF_EVENT_IOC_ID), and the one it is reopened by."""

    kernel: int
    persistent: int | None


class PerfEvent:
    """An open perf event. Made by `open_event` and `reopen`; closed by `close` or `with`.

    A reopened event is the running one itself, not a copy: whoever may reopen it controls it.
    """

    def __init__(
        self,
        fd: OwnedFd,
        kind: messages.Kind,
        cpu: int,
        id: int | None = None,
        target: messages.Target = _EVERY_TASK,
        *,
        system: bool = False,
    ) -> None:
        self._fd = fd
        self._system = system
        self._ring_owner: OwnedFd | None = None
        self._id = id
        self._target = target
        self.kind = kind
        self.cpu = cpu
        self._switched: bool | None = None

    def fileno(self) -> int:
        return self._fd.fileno()

    @cached_property
    def attr(self) -> Attr:
        """As the event was opened; the kernel does not tell."""
        return Attr.unpack(self.kind.attr)

    @property
    def ids(self) -> Ids:
        return Ids(perf_fd.event_id(self.fileno()), self._id)

    @property
    def ring_id(self) -> int:
        """The kernel's id of the event that owns the ring: equal for events that share one."""
        return perf_fd.event_id((self._ring_owner or self._fd).fileno())

    def dup(self) -> OwnedFd:
        """Another fd for it, which the caller owns."""
        return self._fd.dup()

    def read(self) -> Reading:
        """The counts, raw: where time_running_ns is less than time_enabled_ns, a hardware event
        of a CPU was multiplexed. An event of a task is enabled while the task runs, on whatever CPU.

        Raises:
            OSError: read(2)'s errno.
        """
        return perf_fd.read(self.fileno(), self.attr.read_format)

    def enable(self) -> None:
        fcntl.ioctl(self.fileno(), Ioctl.ENABLE, 0)
        self._switched = True

    def disable(self) -> None:
        """Stop counting and recording; of a persistent event, for everyone."""
        fcntl.ioctl(self.fileno(), Ioctl.DISABLE, 0)
        self._switched = False

    def reset(self) -> None:
        """Set the count to 0; the times go on."""
        fcntl.ioctl(self.fileno(), Ioctl.RESET, 0)

    def mmap(self, ring_bytes: int = UNCLAIM_RING_BYTES, writable: bool = False) -> mmap.mmap:
        """Map the event's ring: the control page, then `ring_bytes` of data; the caller closes it.

        The first mapping of all decides what happens when the ring is full: read-only the
        oldest data is overwritten, writable the newest is lost. A persistent event is mapped
        already, at the size that `perfkeep ls` shows; no other is taken.

        Raises:
            OSError: EINVAL not a power of two pages, or not the size of the ring; EPERM over
                the locked-memory limit.
        """
        fd = self._ring_owner or self._fd
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        return mmap.mmap(fd.fileno(), ring_bytes + mmap.PAGESIZE, mmap.MAP_SHARED, protection)

    def unclaim(self, name: str | None = None, *, system: bool = False) -> int:
        """PERF_EVENT_IOC_UNCLAIM: make the event persistent, with a ring of 512 KiB.

        It goes on, enabled or not as it is, after every fd is closed and this process is gone.
        Without a name it is called by its id.

        Args:
            system: in root's instance, whatever the caller's own is.

        Returns:
            The id by which it is reopened, > 0.

        Raises:
            BrokerError: EINVAL no CPU (an event that follows a task) · EEXIST persistent
                already, or the name is taken · EBUSY it has a ring · ENOENT it is dying.
        """
        backward = self.attr.flags & Flag.WRITE_BACKWARD
        request = messages.Start(
            name,
            messages.Ring("backward" if backward else "forward", UNCLAIM_RING_BYTES),
            [self.kind],
            [messages.Slot(0, self.cpu)],
            self._target,
            self._switched,
        )
        started, _ = call("Start", request, [self._fd], system=system)
        assert isinstance(started, messages.Started)
        self._id, self._system = started.events[0], system
        return self._id

    def claim(self) -> None:
        """PERF_EVENT_IOC_CLAIM: take the event out of the registry. It dies with its last fd.

        Raises:
            BrokerError: EINVAL it is not persistent, or has no CPU · EACCES.
        """
        claim(self._fd, system=self._system)
        self._id = None

    def close(self) -> None:
        self._fd.close()
        if self._ring_owner is not None:
            self._ring_owner.close()

    def __enter__(self) -> PerfEvent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<PerfEvent {self.kind.event} on CPU {self.cpu}, {self._fd!r}>"


def open_event(spec: str, *, cpu: int = ANY_CPU, pid: int | None = None) -> PerfEvent:
    """Open one event, disabled, with the caller's own rights.

    Args:
        spec: what `perf stat -e` takes, and names one event.
        cpu: its CPU; ANY_CPU follows the task wherever it runs.
        pid: a thread's id, CALLING_THREAD or ALL_TASKS; left away: all tasks when a CPU is
            named, the calling thread otherwise.

    Raises:
        SpecError: the spec, with the part that is wrong.
        KernelRefused: the kernel said no; the message names the setting behind it.
    """
    from perfkeep import events
    from perfkeep.client.opening import kind_of, open_one

    parsed = events.parse(spec)
    if len(parsed) != 1:
        raise UsageError(f"{spec!r} names {len(parsed)} events; open_event opens one")
    event = parsed[0]
    task = pid if pid is not None else (CALLING_THREAD if cpu == ANY_CPU else ALL_TASKS)
    attr = events.for_counting(event)
    fd = open_one(event, attr, task, cpu)
    target = _EVERY_TASK
    if task != ALL_TASKS:
        pids = [task or threading.get_native_id()]
        target = messages.Target(pids=pids, pid_namespace=pid_namespace())
    return PerfEvent(fd, kind_of(event, attr), cpu, target=target)


def claim(fd: OwnedFd, *, system: bool = False) -> None:
    """PERF_EVENT_IOC_CLAIM of an event of which there is only an fd.

    Raises:
        BrokerError: EINVAL it is not persistent, or has no CPU · EACCES.
    """
    with Shared(system) as connection:
        connection.stage([fd])
        connection.call("ClaimEvent", messages.Nothing(), messages.Nothing)


def reopen(id: int, cpu: int, *, system: bool = False) -> PerfEvent:
    """Another fd for a persistent event that runs on this CPU.

    Args:
        system: one of root's instance, whatever the caller's own is.

    Raises:
        BrokerError: EINVAL bad CPU · EACCES not allowed · ENOENT no such id on that CPU.
    """
    reopened, fds = call("Reopen", messages.ById(id, cpu), system=system)
    assert isinstance(reopened, messages.Reopened)
    event = PerfEvent(fds[0], reopened.kind, cpu, id, system=system)
    if len(fds) > 1:
        event._ring_owner = fds[1]
    return event
