"""What stands between the slashes: "event=0x3c,period=1000,name='a=b'". Pure.

The terms that every event has are applied here, those of a PMU's own in `pmu`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from perfkeep.abi.perf_event import Attr, Flag, Sample
from perfkeep.errors import SpecError
from perfkeep.events.suggest import unknown

#: The terms that every event has.
GENERIC = (
    "config", "config1", "config2", "config3", "period", "freq", "name", "call-graph", "max-stack",
)  # fmt: skip

_TERM = re.compile(r"\s*([^=,']+?)\s*(?:=\s*('[^']*'|[^,']*?)\s*)?(?:,|$)")
_U64 = 2**64
# The greatest sample_max_stack: the field has 16 bits.
_MAX_STACK = 0xFFFF


class Term(NamedTuple):
    """`key=value`, or `key` alone."""

    key: str
    value: str | None = None

    def __str__(self) -> str:
        if self.value is None:
            return self.key
        return f"{self.key}='{self.value}'" if "," in self.value else f"{self.key}={self.value}"


def parse(text: str) -> list[Term]:
    """The terms of "event=0x3c,inv", in their order.

    Raises:
        SpecError: what is no term.
    """
    found: list[Term] = []
    at = 0
    while at < len(text):
        match = _TERM.match(text, at)
        if not match:
            raise SpecError(
                f"{text[at:]!r} is no term", text[at:], hint="write terms like freq=99,name=mine"
            )
        value = match[2]
        found.append(Term(match[1], None if value is None else value.strip("'")))
        at = match.end()
    return found


def number(text: str | None, what: str) -> int:
    """A number as perf takes it: "0x1f" or "31".

    Raises:
        SpecError: not a number of up to 64 bits.
    """
    digits, base = (text[2:], 16) if text and text[:2] in ("0x", "0X") else (text or "", 10)
    pattern = "0*[0-9a-fA-F]{1,16}" if base == 16 else "0*[0-9]{1,20}"
    if not re.fullmatch(pattern, digits) or int(digits, base) >= _U64:
        shown = what if text is None else f"{what}={text}"
        raise SpecError(
            f"{shown!r} needs a number of up to 64 bits",
            shown,
            hint=f"write it like {what}=100 or {what}=0x64",
        )
    return int(digits, base)


def apply(attr: Attr, terms: Iterable[Term]) -> tuple[Attr, str | None]:
    """The attr with what generic terms say, and the name that one of them gives.

    Raises:
        SpecError: not a generic term, or not its kind of value.
    """
    name = None
    for term in terms:
        if term.key == "name":
            if not term.value:
                raise SpecError("name= needs a name", str(term), hint="write it like name=mine")
            name = term.value
        else:
            attr = _apply_one(attr, term)
    return attr, name


def _apply_one(attr: Attr, term: Term) -> Attr:
    if term.key == "call-graph":
        if term.value != "fp":
            raise SpecError(
                f"{str(term)!r} is not supported: call chains are taken by frame pointer",
                str(term),
                hint="write call-graph=fp",
            )
        return replace(attr, sample_type=attr.sample_type | Sample.CALLCHAIN)
    if term.key not in GENERIC:
        raise unknown(
            f"unknown term {term.key!r}; expected some of {', '.join(GENERIC)}", term.key, GENERIC
        )
    value = number(term.value, term.key)
    if term.key == "period":
        return _sampling(attr, term, value, frequency=False)
    if term.key == "freq":
        return _sampling(attr, term, value, frequency=True)
    if term.key == "max-stack":
        if not 0 < value <= _MAX_STACK:
            raise SpecError(f"max-stack={value} is not between 1 and {_MAX_STACK}", str(term))
        return replace(attr, sample_max_stack=value)
    changes = {term.key: value}
    return replace(attr, **changes)  # type: ignore[arg-type]


def _sampling(attr: Attr, term: Term, value: int, frequency: bool) -> Attr:
    # The kernel refuses a period with the highest bit set.
    if not 0 < value < 1 << 63:
        raise SpecError(f"{str(term)!r} must be at least 1 and less than 2^63", str(term))
    flagged = attr.with_flags(on=Flag.FREQ) if frequency else attr.with_flags(off=Flag.FREQ)
    return replace(flagged, sample_period=value)
