"""One system call that waits for its answer, and what the answer can be."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from perfkeep.abi.perf_event import ATTR_SIZE, ATTR_SIZE_VER0, OpenFlag
from perfkeep.kernel import process
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.seccomp import Notification

_HEAD = struct.Struct("=II")
#: The kernel takes no attr that is longer than a page.
_LONGEST_ATTR = 4096


class GoOn:
    """The kernel answers: the call is not about a persistent event."""


@dataclass(frozen=True, slots=True)
class Value:
    """The call returns this."""

    value: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """The call fails with this errno.

    Attributes:
        reason: for the user who sees only the errno; shown on the program's terminal.
    """

    errno: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NewFd:
    """The call returns a new fd of the program's, for this open file.

    Attributes:
        arrived: called with the fd's number in the program.
        undo: called instead when the program could not take it.
        remark: for the user, on what the numbers mean; shown on the program's terminal.
    """

    fd: OwnedFd
    cloexec: bool
    arrived: Callable[[int], object] = lambda number: None
    undo: Callable[[], object] = lambda: None
    remark: str = ""


Answer = GoOn | Value | Refusal | NewFd
GO_ON = GoOn()


def signed(word: int) -> int:
    """An argument of type int: its low 32 bits."""
    return (word & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000


class Caller:
    """The thread that made a call.

    Args:
        thread: its id.
        waits: whether it still does; what was found by its id counts only if so.
    """

    def __init__(self, thread: int, waits: Callable[[], bool]) -> None:
        self.thread = thread
        self.waits = waits

    @cached_property
    def status(self) -> bytes:
        """Raises: OSError."""
        return process.status(self.thread)

    @cached_property
    def process(self) -> int:
        """Its tgid. Raises: OSError."""
        return process.process_in(self.status)

    def has_rights(self, rights: tuple[bytes | str, ...]) -> bool:
        """Whether it may do just what a thread with these may; False as well when that cannot
        be found out."""
        try:
            return process.rights(self.thread, self.status) == rights and self.waits()
        except OSError:
            return False


class OpenCall(NamedTuple):
    """perf_event_open(2), its arguments read once and never again.

    What the attr's pointer points at may change at any time; all that we decide and do is about
    this copy.
    """

    caller: Caller
    pointer: int
    attr: bytes
    pid: int
    cpu: int
    group_fd: int
    flags: int

    @property
    def cloexec(self) -> bool:
        return bool(self.flags & OpenFlag.FD_CLOEXEC)


class IoctlCall(NamedTuple):
    """ioctl(2) with one of the commands that the filter traps."""

    caller: Caller
    fd: int
    command: int
    argument: int


def open_call(caller: Caller, call: Notification) -> OpenCall:
    """Raises: OSError: what the attr should be cannot be read, or is no attr."""
    pointer, pid, cpu, group_fd, flags, _ = call.args
    attr = process.read_memory(caller.thread, pointer, ATTR_SIZE)
    size = (_HEAD.unpack_from(attr)[1] if len(attr) >= _HEAD.size else 0) or ATTR_SIZE_VER0
    if not ATTR_SIZE_VER0 <= size <= _LONGEST_ATTR:
        raise OSError(errno.E2BIG, "no size that an attr has")
    if size > ATTR_SIZE:
        attr = process.read_memory(caller.thread, pointer, size)
    if len(attr) < size:
        raise OSError(errno.EFAULT, "the attr ends where nothing is")
    # The size once more as it was checked, should it have changed between two looks.
    attr = attr[:4] + _HEAD.pack(0, size)[4:] + attr[8:size]
    return OpenCall(caller, pointer, attr, signed(pid), signed(cpu), signed(group_fd), flags)


def ioctl_call(caller: Caller, call: Notification) -> IoctlCall:
    fd, command, argument = call.args[:3]
    return IoctlCall(caller, signed(fd), command & 0xFFFF_FFFF, argument)
