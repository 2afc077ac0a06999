"""What the files of profilers are made of: samples of one event with their stacks, and the machine."""

from __future__ import annotations

from typing import NamedTuple

from perfkeep.abi.perf_event import Attr


class Row(NamedTuple):
    """One sample.

    Attributes:
        time: in ns of the recording's clock.
        stack: which one of the stacks.
        period: how many of what the event counts it stands for.
    """

    time: int
    pid: int
    tid: int
    cpu: int
    comm: str
    stack: int
    period: int


class Sampled(NamedTuple):
    """
    Attributes:
        event: its name.
        functions: (name, file) that frames are numbered by; "" where the file is not known.
        stacks: each once: frames from the outermost to the innermost.
        rows: by time.
        wall_offset_ns: what to add to a time for ns since 1970; None: not known.
        attr: of the event: in which unit periods are.
    """

    event: str
    functions: list[tuple[str, str]]
    stacks: list[tuple[int, ...]]
    rows: list[Row]
    wall_offset_ns: int | None
    attr: Attr


class Facts(NamedTuple):
    """What the file says of the machine; "" and 0 where it does not."""

    host: str = ""
    release: str = ""
    machine: str = ""
    cpu: str = ""
    cpus: int = 0
