"""The way back: an attr that some program made → the event's spec and name.

What is found is what a user could type to have it opened again (`events.parse`).
"""

from __future__ import annotations

from perfkeep.abi.event_names import name_of
from perfkeep.abi.perf_event import Attr, Flag, Type
from perfkeep.errors import PerfkeepError
from perfkeep.events import breakpoints, modifiers
from perfkeep.events.event import Event
from perfkeep.kernel import pmus, tracefs
from perfkeep.kernel.tracefs import Tracepoint


def event_of(attr: Attr, path: str | None = None) -> Event:
    """The event that an attr describes.

    Args:
        path: what config1 of a probe points at: the file of a uprobe, the function of a kprobe.
    """
    point = _tracepoint(attr.config) if attr.type == Type.TRACEPOINT else None
    head, fields = _head(attr, point, path)
    terms = [f"{name}={value}" for name, value in fields]
    if attr.sample_period and not (point and attr.sample_period == 1):
        word = "freq" if attr.flags & Flag.FREQ else "period"
        terms.append(f"{word}={attr.sample_period}")
    letters = modifiers.letters(attr)
    end = f":{letters}" if letters else ""
    text = f"{head}/{','.join(terms)}/{letters}" if terms else head + end
    return Event(
        text=text, name=head + end, attr=attr, group=None, tracepoint=point, path=path, cpus=None
    )


def _head(
    attr: Attr, point: Tracepoint | None, path: str | None
) -> tuple[str, list[tuple[str, str]]]:
    """What stands before the terms, and the terms that only the attr's fields can be."""
    if point is not None:
        return f"{point.system}:{point.name}", []
    if attr.type == Type.BREAKPOINT:
        return breakpoints.head(attr), []
    # The name of a generic event would leave out which PMU of a hybrid machine counts it.
    of_any_pmu = attr.generic == (attr.type, attr.config)
    if attr.type <= Type.RAW and of_any_pmu and (name := name_of(attr)) is not None:
        return name, []
    pmu = _pmu(attr.type)
    if pmu in ("uprobe", "kprobe") and (probe := _probe(attr, pmu, path)):
        return probe, []
    rest = [(field, getattr(attr, field)) for field in ("config1", "config2", "config3")]
    if pmu is None:
        head, fields = f"{attr.type}:{attr.config:#x}", []
    else:
        head, fields = pmu, [("config", f"{attr.config:#x}")]
    return head, fields + [(name, f"{value:#x}") for name, value in rest if value]


def _tracepoint(id: int) -> Tracepoint | None:
    """None: tracefs cannot be read, or has none of this number (any more)."""
    try:
        return tracefs.by_id(id)
    except (PerfkeepError, FileNotFoundError):
        return None


def _pmu(type: int) -> str | None:
    for name in pmus.names():
        try:
            if pmus.type_of(name) == type:
                return name
        except OSError:
            continue  # it has just gone, or a folder is there by mistake
    return None


def _probe(attr: Attr, pmu: str, path: str | None) -> str | None:
    kind = ("uret" if pmu[0] == "u" else "kret") + "probe" if attr.config & 1 else pmu
    if path is None:
        return f"{kind}:{attr.config2:#x}" if pmu == "kprobe" else None
    if pmu == "uprobe":
        return f"{kind}:{path}:{attr.config2:#x}"
    return f"{kind}:{path}+{attr.config2:#x}" if attr.config2 else f"{kind}:{path}"
