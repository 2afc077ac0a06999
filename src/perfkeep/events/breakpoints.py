"""Hardware breakpoints: "mem:0x1000", "mem:0x1000/8:rw". Pure."""

from __future__ import annotations

import re

from perfkeep.abi.perf_event import Attr, Type
from perfkeep.errors import SpecError
from perfkeep.events import terms
from perfkeep.events.found import Found
from perfkeep.events.typed import Typed

# <linux/hw_breakpoint.h>
_ACCESS = {"r": 1, "w": 2, "x": 4}
_DEFAULT_ACCESS = _ACCESS["r"] | _ACCESS["w"]
_LONGEST = 8
_DEFAULT_LENGTH = 4
# The kernel takes no other length for x: sizeof(long).
_EXECUTE_LENGTH = 8

_HEAD = re.compile(r"mem:(?P<address>\w+)(?:/(?P<length>\w+))?(?::(?P<access>[rwx]+))?")


def resolve(typed: Typed) -> list[Found]:
    """mem:ADDRESS[/LENGTH][:rwx]; without access: read and write, as in perf.

    Raises:
        SpecError: no number, no length that the hardware has, an access named twice.
    """
    match = _HEAD.fullmatch(typed.head)
    if not match:
        raise SpecError(
            f"{typed.head!r} is no breakpoint",
            typed.head,
            hint="write mem:ADDRESS[/LENGTH][:ACCESS], like mem:0x1000/8:rw",
        )
    if set(_ACCESS).intersection(typed.modifiers):
        raise SpecError(
            f"{typed.modifiers!r} in {str(typed)!r} is neither an access (some of rwx) nor modifiers",
            typed.modifiers,
        )
    letters = match["access"] or ""
    access = sum(_ACCESS[letter] for letter in set(letters))
    if len(set(letters)) < len(letters):
        raise SpecError(
            f"an access stands twice in {typed.head!r}",
            letters,
            hint="write each of rwx at most once",
        )
    attr = Attr(
        type=Type.BREAKPOINT,
        bp_type=access or _DEFAULT_ACCESS,
        config1=_number(match["address"], "address", typed),
        config2=_length(match["length"], access, typed),
    )
    attr, given = terms.apply(attr, terms.parse(typed.terms or ""))
    return [Found(typed, attr, given)]


def head(attr: Attr) -> str:
    """The way back: "mem:0x1000/8:rw"."""
    access = "".join(letter for letter, bit in _ACCESS.items() if attr.bp_type & bit)
    return f"mem:{attr.config1:#x}/{attr.config2}:{access}"


def _length(text: str | None, access: int, typed: Typed) -> int:
    if text is None:
        return _EXECUTE_LENGTH if access == _ACCESS["x"] else _DEFAULT_LENGTH
    length = _number(text, "length", typed)
    if not 0 < length <= _LONGEST:
        raise SpecError(
            f"a breakpoint is 1 to {_LONGEST} bytes long, not {length} as in {typed.head!r}", text
        )
    return length


def _number(text: str, what: str, typed: Typed) -> int:
    try:
        return terms.number(text, what)
    except SpecError:
        raise SpecError(
            f"the {what} {text!r} in {typed.head!r} is no number of up to 64 bits",
            text,
            hint="write it like 0x1000",
        ) from None
