"""Tracepoints by name or glob: "sched:sched_switch", "sched:*", "*:*wakeup*"."""

from __future__ import annotations

from dataclasses import replace

from perfkeep.abi.perf_event import Attr, Type
from perfkeep.errors import SpecError
from perfkeep.events import modifiers, names, terms
from perfkeep.events.found import Found
from perfkeep.events.suggest import suggest, unknown
from perfkeep.events.typed import Typed
from perfkeep.kernel import tracefs
from perfkeep.kernel.tracefs import Tracepoint

_GLOB = frozenset("*?[")


def resolve(typed: Typed) -> list[Found]:
    """One for each tracepoint that "system:name" or "system:name:modifiers" means.

    Raises:
        SpecError: ENOENT none has that name · EINVAL too many parts.
        KernelRefused: tracefs cannot be read.
    """
    typed = _part(typed)
    system, _, name = typed.head.partition(":")
    attr, given = terms.apply(Attr(type=Type.TRACEPOINT), terms.parse(typed.terms or ""))
    return [
        Found(
            typed._replace(head=f"{point.system}:{point.name}"),
            replace(attr, config=point.id),
            given,
            tracepoint=point,
        )
        for point in _look_up(system, name)
    ]


def _part(typed: Typed) -> Typed:
    """Tell the modifiers of "system:name:modifiers" from its head."""
    system, _, rest = typed.head.partition(":")
    name, colon, letters = rest.partition(":")
    if not system or not name or (colon and (not letters or typed.terms is not None)):
        raise SpecError(
            f"{str(typed)!r} is no tracepoint",
            typed.head,
            hint="write system:name or system:name:modifiers",
        )
    return Typed(f"{system}:{name}", typed.terms, letters or typed.modifiers)


def _look_up(system: str, name: str) -> list[Tracepoint]:
    if _GLOB.intersection(system + name):
        found = tracefs.tracepoints(system, name)
        if not found:
            raise unknown(f"no tracepoint matches {system}:{name}", f"{system}:{name}")
        return found
    try:
        return [tracefs.tracepoint(system, name)]
    except FileNotFoundError:
        raise _unknown(system, name) from None


def _unknown(system: str, name: str) -> SpecError:
    text = f"{system}:{name}"
    inside = [f"{system}:{other}" for _, other in tracefs.names(system)]
    if inside:
        message = f"unknown event {text!r}: no such tracepoint in {system!r}"
        return unknown(message, text, inside, f"ls {tracefs.root()}/events/{system}")
    points = tracefs.names()
    near = suggest(system, {other for other, _ in points})
    everything = [f"{a}:{b}" for a, b in points if not near or a in near]
    if modifiers.KNOWN.issuperset(name):  # "cpu-clok:u" may be a misspelt event and a modifier
        everything += [f"{other}:{name}" for other in names.all_names()]
    message = f"unknown event {text!r}: there is no tracepoint system {system!r}"
    return unknown(message, text, everything, f"ls {tracefs.root()}/events")
