"""Names of tables, which SQL takes as they are, for kinds of events. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from perfkeep.abi.perf_event import Type
from perfkeep.records.parts import Kind

#: Views over the tables, and what they are made of; no table of an event has one of these names.
VIEWS = ("off_cpu", "run_queue", "syscalls", "flames", "switched_in")


def table_names(kinds: Sequence[Kind]) -> list[str]:
    """A name for each: without the system where that is unambiguous. SQL does not tell upper from lower
    case, so no two names differ in case only; a name that is taken gets "_" at its end.
    """
    short = Counter(_plain(_short(kind)).lower() for kind in kinds)
    names: list[str] = []
    taken = set(VIEWS)
    for kind in kinds:
        name = _plain(_short(kind))
        if short[name.lower()] > 1:
            name = _plain(kind.name)
        while name.lower() in taken:
            name += "_"
        taken.add(name.lower())
        names.append(name)
    return names


def _short(kind: Kind) -> str:
    """Without the system; behind the colon of another event are its modifiers."""
    _, colon, name = kind.name.partition(":")
    return name if colon and (kind.format or kind.attr.type == Type.TRACEPOINT) else kind.name


def _plain(name: str) -> str:
    """Letters, digits and "_"."""
    text = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "event"
    return text if not text[0].isdigit() else f"event_{text}"
