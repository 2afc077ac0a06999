"""Cuts what was typed into events: commas, {groups}, /terms/, modifiers. Pure; knows no names."""

from __future__ import annotations

import re
from typing import NamedTuple

from perfkeep.errors import SpecError

_TERMS = r"/(?P<terms>(?:'[^']*'|[^'/])*)/:?(?P<after>\w*)"
_END = r"(?=\s*(?:[,}]|$))"
_TAIL = rf"(?:{_TERMS}|:(?P<modifiers>\w+))?{_END}"

# These have colons and slashes of their own. The path of a probe may hold anything but a comma;
# it ends at the first colon after which all the rest makes sense.
_SPECIAL = {
    "uprobe:": re.compile(rf"(?P<head>uprobe:[^,]+?:[^:/,{{}}]+){_TAIL}"),
    "uretprobe:": re.compile(rf"(?P<head>uretprobe:[^,]+?:[^:/,{{}}]+){_TAIL}"),
    "kprobe:": re.compile(rf"(?P<head>kprobe:[^:/,{{}}]+){_TAIL}"),
    "kretprobe:": re.compile(rf"(?P<head>kretprobe:[^:/,{{}}]+){_TAIL}"),
    "mem:": re.compile(
        rf"(?P<head>mem:\w+(?:/(?:0x[0-9a-fA-F]+|\d+)(?!\w))?(?::[rwx]+(?!\w))?){_TAIL}"
    ),
}
_ORDINARY = re.compile(rf"(?P<head>[^,{{}}/]*)(?:{_TERMS})?{_END}")
_UP_TO_COMMA = re.compile(r"[^,}]*")
_SPACE = re.compile(r"\s*")
_GROUP_BEGINS = re.compile(r"\s*(?:[A-Za-z_]\w*)?\{")  # perf lets a group have a name
_GROUP_ENDS = re.compile(rf"\s*\}}(?::(\w+))?{_END}")


class Typed(NamedTuple):
    """One event as typed: `head`, then `/terms/modifiers` or `:modifiers`.

    The head of "sched:sched_switch:u" is still all of it: only who knows the names can tell a
    part of a name from a modifier.
    """

    head: str
    terms: str | None = None
    modifiers: str = ""

    def __str__(self) -> str:
        if self.terms is not None:
            return f"{self.head}/{self.terms}/{self.modifiers}"
        return f"{self.head}:{self.modifiers}" if self.modifiers else self.head


class Member(NamedTuple):
    """One event, and the {group} that it stands in."""

    typed: Typed
    group: int | None = None
    group_modifiers: str = ""
    leads: bool = True


def members(text: str) -> list[Member]:
    """Cut "a,{b,c}:u" into a alone; b and c in one group, both with the group's modifier u.

    Raises:
        SpecError: braces or slashes that do not match, nothing between commas.
    """
    found: list[Member] = []
    at = 0
    for number in range(len(text) + 1):
        if begin := _GROUP_BEGINS.match(text, at):
            inside, at = _events(text, begin.end())
            end = _GROUP_ENDS.match(text, at)
            if not end:
                raise _no_group(text[begin.start() :])
            modifiers, at = end[1] or "", end.end()
            found += [Member(one, number, modifiers, i == 0) for i, one in enumerate(inside)]
        else:
            one, at = _event(text, at)
            found.append(Member(one))
        at = _skip(text, at)
        if at == len(text):
            break
        if text[at] != ",":
            raise _no_group(text[at:])
        at += 1
    return found


def _no_group(text: str) -> SpecError:
    return SpecError(f"{text!r} is no group of events", text, hint="write it like {a,b} or {a,b}:u")


def _events(text: str, at: int) -> tuple[list[Typed], int]:
    """The events of a group, and where they end."""
    found: list[Typed] = []
    while True:
        one, at = _event(text, at)
        found.append(one)
        at = _skip(text, at)
        if text[at : at + 1] != ",":
            return found, at
        at += 1


def _event(text: str, at: int) -> tuple[Typed, int]:
    """The event that begins at `at`, and where it ends."""
    at = _skip(text, at)
    pattern = next((p for prefix, p in _SPECIAL.items() if text.startswith(prefix, at)), _ORDINARY)
    match = pattern.match(text, at)
    if not match:
        return _unclear(text, at, special=pattern is not _ORDINARY)
    head, parts = match["head"].strip(), match.groupdict()
    if not head:
        raise SpecError(
            f"{text!r} has no event where one should be",
            text,
            hint="write them like cpu-clock,faults",
        )
    modifiers = parts["after"] or parts.get("modifiers") or ""
    terms = parts["terms"]
    return Typed(head, None if terms is None else terms.strip(), modifiers), match.end()


def _unclear(text: str, at: int, special: bool) -> tuple[Typed, int]:
    rest = _UP_TO_COMMA.match(text, at)
    assert rest  # it matches nothing as well
    if special:
        return Typed(rest[0].strip()), rest.end()  # the kind of event says what is wrong with it
    if "{" in rest[0]:
        raise _no_group(text[at:])
    raise SpecError(
        f"{rest[0]!r} needs its terms between two slashes",
        rest[0],
        hint="write it like cpu-clock/freq=99/u",
    )


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
