"""What parsing gives. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from perfkeep.abi.perf_event import Attr
from perfkeep.kernel.tracefs import Tracepoint


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the kernel, as it was asked for.

    Attributes:
        text: this one event as a user could type it again: "cpu-clock/freq=999/u".
        name: the short name for tables and perf.data: "cpu-clock:u".
        attr: type, config and what the text said; what the text left open is 0.
        group: None: alone; equal numbers within one spec: one {group}, the first is its leader.
        tracepoint: the tracepoint, for one.
        path: for a uprobe the file, for a kprobe the kernel's symbol: attr.config1 must point at
            this text, ended by NUL, while the event is opened.
        cpus: the CPUs that the PMU wants its events opened on; None: any.
    """

    text: str
    name: str
    attr: Attr
    group: int | None = None
    tracepoint: Tracepoint | None = None
    path: str | None = None
    cpus: tuple[int, ...] | None = None
