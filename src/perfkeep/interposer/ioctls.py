"""The trapped ioctl(2)s under `perfkeep exec`."""

from __future__ import annotations

import errno

from perfkeep.abi.perf_event import PERF_EVENT_IOC_CLAIM, PERF_EVENT_IOC_UNCLAIM, Ioctl
from perfkeep.client.event import claim, reopen
from perfkeep.errors import BrokerError
from perfkeep.interposer.calls import GO_ON, Answer, IoctlCall, Refusal, Value, signed
from perfkeep.interposer.table import Reopened, Table
from perfkeep.interposer.unclaim import unclaim
from perfkeep.kernel import perf_fd, process
from perfkeep.kernel.fd import OwnedFd


def event_behind(call: IoctlCall, number: int) -> tuple[OwnedFd, int] | None:
    """Our own fd for what the program has under a number, with the kernel's id; None: it is no
    perf event, or cannot be looked at.
    """
    try:
        fd = process.take_fd(call.caller.thread, number)
    except OSError:
        return None
    try:
        kernel_id = perf_fd.check(fd.fileno())
        if call.caller.waits():
            return fd, kernel_id
    except OSError:
        pass
    fd.close()
    return None


def concerns_us(call: IoctlCall, table: Table) -> bool:
    """Whether the broker must be asked. All else the kernel answers: what is no perf event, and
    whatever was not reopened here."""
    if call.command in (PERF_EVENT_IOC_UNCLAIM, PERF_EVENT_IOC_CLAIM):
        return True
    return bool(table.reopened)


def persistent(call: IoctlCall, table: Table, rights: tuple[bytes | str, ...]) -> Answer:
    """Answer an ioctl, or leave it to the kernel.

    Raises:
        OSError: the errno that the program gets.
    """
    found = event_behind(call, call.fd)
    if found is None:
        return GO_ON
    fd, kernel_id = found
    with fd:
        if call.command == PERF_EVENT_IOC_UNCLAIM:
            return _unclaim(call, fd, kernel_id, table, rights)
        if call.command == PERF_EVENT_IOC_CLAIM:
            return _claim(call, fd, kernel_id, table, rights)
        return _switch(call, kernel_id, table)


def _unclaim(
    call: IoctlCall, fd: OwnedFd, kernel_id: int, table: Table, rights: tuple[bytes | str, ...]
) -> Answer:
    opened = table.opened.get(kernel_id)
    if opened is None:
        # It follows a task, or was opened by someone whom we do not supervise.
        return Refusal(errno.EINVAL)
    if not call.caller.has_rights(rights):
        return Refusal(errno.EACCES)
    return Value(unclaim(fd, opened))


def _claim(
    call: IoctlCall, fd: OwnedFd, kernel_id: int, table: Table, rights: tuple[bytes | str, ...]
) -> Answer:
    if not call.caller.has_rights(rights):
        return Refusal(errno.EACCES)
    claim(fd)
    table.reopened.pop(kernel_id, None)
    return Value()


def _switch(call: IoctlCall, kernel_id: int, table: Table) -> Answer:
    """DISABLE, PAUSE_OUTPUT, SET_OUTPUT: what would disturb everyone else who has the event."""
    if call.command == Ioctl.SET_OUTPUT and (answer := _set_output_into(call, kernel_id, table)):
        return answer
    entry = table.reopened.get(kernel_id)
    if entry is None or not table.is_reader(kernel_id, call.caller.process, call.fd):
        return GO_ON
    if not _persists(entry, kernel_id):
        del table.reopened[kernel_id]
        return GO_ON
    if call.command != Ioctl.SET_OUTPUT:
        return Value()
    into = event_behind(call, signed(call.argument))
    if into is None:
        return GO_ON if signed(call.argument) >= 0 else Refusal(errno.EINVAL)
    with into[0]:
        other = table.reopened.get(into[1])
    # The kernel says EINVAL of an event that is mapped, as this one is by the keeper.
    return Value() if other and other.ring == entry.ring else Refusal(errno.EINVAL)


def _set_output_into(call: IoctlCall, kernel_id: int, table: Table) -> Answer | None:
    """An event of the program's own must not write into a ring that others read."""
    if kernel_id in table.reopened or (into := event_behind(call, signed(call.argument))) is None:
        return None
    with into[0]:
        entry = table.reopened.get(into[1])
    if entry is None or not _persists(entry, into[1]):
        return None
    # Accepted, and not done: `perf record -a` asks for this with an event that only tells of new
    # processes, and gives up when it is refused.
    return Value()


def _persists(entry: Reopened, kernel_id: int) -> bool:
    """Whether the event is persistent still. When nobody can say, it is: better one event that
    goes on than all that stop."""
    try:
        with reopen(entry.id, entry.cpu) as event:
            return event.ids.kernel == kernel_id
    except BrokerError:
        return False
    except OSError:
        return True
