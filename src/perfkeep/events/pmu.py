"""Events of a PMU, by the terms that sysfs lists for it: "msr/tsc/", "cpu/event=0x3c,umask=1/"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from perfkeep.abi.perf_event import Attr
from perfkeep.errors import SpecError
from perfkeep.events import terms
from perfkeep.events.found import Found
from perfkeep.events.suggest import unknown
from perfkeep.events.terms import Term
from perfkeep.events.typed import Typed
from perfkeep.kernel import pmus
from perfkeep.kernel.pmus import Pmu

# Terms that say nothing about which event it is.
_SAMPLING = ("period", "freq", "name")


def matching(name: str) -> list[str]:
    """The PMUs that a name means: the one, or, as in perf, all instances of an uncore PMU:
    "uncore_imc" or "imc" for uncore_imc_0, uncore_imc_1, …"""
    present = pmus.names()
    if name in present:
        return [name]
    instance = re.compile(rf"(?:uncore_)?{re.escape(name)}(?:_?[0-9]+)?")
    return [other for other in present if instance.fullmatch(other)]


def resolve(typed: Typed) -> list[Found]:
    """pmu/terms/: one event for each PMU that the name means.

    Raises:
        SpecError: ENOENT no such PMU or term · EINVAL a value that does not fit.
    """
    found = [_resolve_one(pmus.load(name), typed) for name in matching(typed.head)]
    if not found:
        present = pmus.names()
        raise unknown(
            f"unknown event {str(typed)!r}: this machine has no PMU {typed.head!r}, "
            f"only {', '.join(present) or 'none'}",
            typed.head,
            present,
        )
    return found


def by_event(name: str, typed: Typed) -> list[Found]:
    """What a bare name means that some PMUs list as an event: "tsc" for msr/tsc/."""
    extra = f",{typed.terms}" if typed.terms else ""
    return [
        _resolve_one(pmus.load(pmu), typed._replace(head=pmu, terms=name + extra))
        for pmu in pmus.with_event(name)
    ]


def _resolve_one(pmu: Pmu, typed: Typed) -> Found:
    given = terms.parse(typed.terms or "")
    expanded = _with_aliases(pmu, given)
    own = [term for term in expanded if term.key in pmu.formats]
    # As in perf, `config=` comes first, whatever the order, and the others set bits in it.
    attr, name = terms.apply(
        Attr(type=pmu.type), _known(pmu, [term for term in expanded if term not in own])
    )
    for term in own:
        attr = _set(pmu, attr, term, given)
    shown = ",".join(str(term) for term in given if term.key not in _SAMPLING)
    return Found(
        typed._replace(head=pmu.name), attr, name, shown=f"{pmu.name}/{shown}/", cpus=pmu.cpus
    )


def _with_aliases(pmu: Pmu, given: Iterable[Term]) -> list[Term]:
    """The terms, with each named event of the PMU replaced by the terms that it stands for."""
    expanded: list[Term] = []
    for term in given:
        # perf takes `tsc` and `tsc=1` for the event; with another value it is a format.
        if term.key in pmu.events and term.value in (None, "1"):
            expanded += terms.parse(pmu.events[term.key])
        else:
            expanded.append(term)
    return expanded


def _known(pmu: Pmu, others: list[Term]) -> list[Term]:
    for term in others:
        if term.key not in terms.GENERIC:
            expected = [*pmu.formats, *pmu.events, *terms.GENERIC]
            raise unknown(
                f"unknown term {term.key!r} of PMU {pmu.name!r}; expected some of "
                f"{', '.join(expected[:20])}",
                term.key,
                expected,
            )
    return others


def _set(pmu: Pmu, attr: Attr, term: Term, given: Iterable[Term]) -> Attr:
    bits = pmu.formats[term.key]
    value = 1 if term.value is None else terms.number(_parameter(term, given), term.key)
    if value > bits.greatest:
        raise SpecError(
            f"{term.key}={value:#x} is too big for PMU {pmu.name!r}: the greatest is "
            f"{bits.greatest:#x}",
            str(term),
        )
    changes = {bits.field: getattr(attr, bits.field) | bits.place(value)}
    return replace(attr, **changes)


def _parameter(term: Term, given: Iterable[Term]) -> str | None:
    """A named event may leave a value open ("domain=?"), which the user must give."""
    if term.value != "?":
        return term.value
    for other in given:
        if other.key == term.key and other.value != "?":
            return other.value
    raise SpecError(
        f"the event needs a value for {term.key!r}", term.key, hint=f"add {term.key}=NUMBER"
    )
