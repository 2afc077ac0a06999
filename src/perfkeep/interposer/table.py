"""What the supervisor remembers of events, by the kernel's ids. Pure.

Nothing tells a supervisor that an event is gone, so what was used longest ago is forgotten when
there is much. Of a forgotten event nothing is known: it cannot be unclaimed (EINVAL).
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

#: 500 kinds of event on 128 CPUs; 27 MB at most.
_MOST = 1 << 16

Entry = TypeVar("Entry")


class Opened(NamedTuple):
    """An event of a CPU that was opened in the program's place."""

    #: struct perf_event_attr, without the bit `persistent`; with config1 0 for a probe.
    attr: bytes
    cpu: int
    #: Whose event it is: the process that asked for it.
    process: int
    #: What the attr's config1 pointed at, when the event is a probe.
    path: str | None = None


class Reopened(NamedTuple):
    """A persistent event that a program has been given an fd for."""

    id: int
    cpu: int
    #: The kernel's id of the event whose ring it records into.
    ring: int
    #: (process, fd) under which it was given.
    numbers: set[tuple[int, int]]


class Remembered(dict[int, Entry], Generic[Entry]):
    """Kernel id → entry, at most `_MOST` of them."""

    def __setitem__(self, kernel_id: int, entry: Entry) -> None:
        self.pop(kernel_id, None)
        if len(self) >= _MOST:
            del self[next(iter(self))]
        super().__setitem__(kernel_id, entry)


class Table:
    """Both kinds. Used by the threads of one supervisor; each step is one dict operation."""

    def __init__(self) -> None:
        self.opened: Remembered[Opened] = Remembered()
        self.reopened: Remembered[Reopened] = Remembered()

    def is_reader(self, kernel_id: int, process: int, fd: int) -> bool:
        """Whether this fd of a process came from reopening the event, and not from opening it."""
        reopened = self.reopened.get(kernel_id)
        if reopened is None:
            return False
        if (process, fd) in reopened.numbers:
            return True
        opened = self.opened.get(kernel_id)
        return opened is None or opened.process != process
