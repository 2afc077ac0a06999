"""One -e argument → events. Knows which kind of event a text is; each kind has its own file."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from perfkeep.abi.perf_event import Attr
from perfkeep.errors import SpecError
from perfkeep.events import breakpoints, modifiers, names, pmu, probes, terms, tracepoints
from perfkeep.events.event import Event
from perfkeep.events.found import Found
from perfkeep.events.suggest import unknown
from perfkeep.events.typed import Member, Typed, members
from perfkeep.kernel import pmus

_BY_PREFIX: dict[str, Callable[[Typed], list[Found]]] = {
    "mem": breakpoints.resolve,
    **dict.fromkeys(probes.KINDS, probes.resolve),
}


def parse(text: str) -> tuple[Event, ...]:
    """What an -e argument of `perf` means: "a,b", "{a,b}:u", "sched:*", …

    Globs give one event for each tracepoint that matches, in the order of their names; "pmu/…/"
    may give one for each instance of an uncore PMU.

    Raises:
        SpecError: ENOENT an unknown name · ENODEV a kind that this kernel lacks · EINVAL the
            syntax or a value; it names the part, what was expected, and what comes close.
        KernelRefused: tracepoints are asked for, and tracefs cannot be mounted or read.
    """
    if "\0" in text:
        raise SpecError(f"{text!r} has a NUL in it", "\0")
    return tuple(event for member in members(text) for event in _events(member))


def _events(member: Member) -> Iterator[Event]:
    found = _resolve(member.typed)
    for number, one in enumerate(found):
        yield _finish(one, member, leads=member.leads and number == 0)


def _resolve(typed: Typed) -> list[Found]:
    first, colon, rest = typed.head.partition(":")
    if colon and first in _BY_PREFIX:
        return _BY_PREFIX[first](typed)
    if found := _named(first, typed._replace(head=first, modifiers=rest or typed.modifiers)):
        if colon and (not rest or typed.terms is not None):
            raise SpecError(
                f"{str(typed)!r} needs its modifiers at the end",
                typed.head,
                hint="write it like cpu-clock:u or cpu-clock/freq=99/u",
            )
        return found
    if first.isdecimal() and colon:
        return _numeric(typed)
    if colon:
        return tracepoints.resolve(typed)
    if typed.terms is not None:
        return pmu.resolve(typed)
    raise _unknown(typed)


def _named(name: str, typed: Typed) -> list[Found]:
    """An event with a name of its own, or one that some PMU lists; none when neither has it."""
    attr = names.attr_of(name)
    if attr is not None:
        return [_plain(attr, typed)]
    return pmu.by_event(name, typed)


def _plain(attr: Attr, typed: Typed) -> Found:
    attr, given = terms.apply(attr, terms.parse(typed.terms or ""))
    return Found(typed, attr, given)


def _numeric(typed: Typed) -> list[Found]:
    """attr.type and attr.config by number: "4:0x1a8" or "4:0x1a8:u"."""
    type_, _, rest = typed.head.partition(":")
    config, colon, letters = rest.partition(":")
    number = terms.number(type_, "type")
    if number >= 1 << 32 or (colon and not letters):
        raise SpecError(f"{str(typed)!r} is no TYPE:CONFIG with an optional :u", typed.head)
    attr = Attr(type=number, config=terms.number(config, "config"))
    head = f"{type_}:{config}"
    return [_plain(attr, Typed(head, typed.terms, letters or typed.modifiers))]


def _unknown(typed: Typed) -> SpecError:
    candidates = [*names.all_names(), *(event for _, event in pmus.all_events())]
    if typed.head in pmus.names():
        text = f"{typed.head!r} is a PMU and needs terms"
        return SpecError(text, typed.head, hint=f"write it like {typed.head}/config=1/")
    return unknown(f"unknown event {str(typed)!r}", typed.head, candidates)


def _finish(found: Found, member: Member, leads: bool) -> Event:
    typed = found.typed
    letters = modifiers.join(typed.modifiers, member.group_modifiers, leads, str(typed))
    whole = typed._replace(modifiers=letters)
    shown = found.shown + letters if found.shown else str(whole._replace(terms=None))
    return Event(
        text=str(whole),
        name=found.given or shown,
        attr=modifiers.apply(found.attr, letters),
        group=member.group,
        tracepoint=found.tracepoint,
        path=found.path,
        cpus=found.cpus,
    )
