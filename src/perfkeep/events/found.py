"""What the files for each kind of event hand to the parser. Pure."""

from __future__ import annotations

from typing import NamedTuple

from perfkeep.abi.perf_event import Attr
from perfkeep.events.typed import Typed
from perfkeep.kernel.tracefs import Tracepoint


class Found(NamedTuple):
    """An event of the kernel, before its modifiers are applied.

    `typed` spells it with its modifiers. `given` is the name that a name= term gave it; otherwise
    it is `shown`, or the head of `typed`, and the modifiers.
    """

    typed: Typed
    attr: Attr
    given: str | None = None
    shown: str | None = None
    tracepoint: Tracepoint | None = None
    path: str | None = None
    cpus: tuple[int, ...] | None = None
