"""Probes: "uprobe:PATH:FUNCTION+0x10", "uretprobe:PATH:0xOFFSET", "kprobe:FUNCTION".

They are made by perf_event_open alone, so nothing stays behind in tracefs when they are closed.
"""

from __future__ import annotations

import errno
import os
import re

from perfkeep.abi.perf_event import Attr
from perfkeep.errors import SpecError
from perfkeep.events import elf, terms
from perfkeep.events.found import Found
from perfkeep.events.typed import Typed
from perfkeep.kernel import pmus
from perfkeep.kernel.pmus import Pmu

KINDS = ("uprobe", "uretprobe", "kprobe", "kretprobe")

_NUMBER = re.compile("0x[0-9a-fA-F]+|[0-9]+")
_ALLOWED = ("period", "freq", "name", "call-graph", "max-stack")


def resolve(typed: Typed) -> list[Found]:
    """One probe.

    Raises:
        SpecError: ENODEV the kernel has no such probes · ENOENT no such file or function ·
            EINVAL not the form that a probe has.
    """
    kind, _, rest = typed.head.partition(":")
    returns = kind in ("uretprobe", "kretprobe")
    place = _in_file if kind.startswith("u") else _in_kernel
    name, path, offset = place(kind, rest)
    pmu = _pmu("uprobe" if kind.startswith("u") else "kprobe", typed)
    attr = Attr(
        type=pmu.type,
        config=pmu.formats["retprobe"].place(1) if returns else 0,
        config2=offset,
    )
    attr, given = terms.apply(attr, _allowed(typed))
    return [Found(typed._replace(head=f"{kind}:{name}"), attr, given, path=path)]


def _allowed(typed: Typed) -> list[terms.Term]:
    """config and the like would overwrite the place of the probe."""
    found = terms.parse(typed.terms or "")
    for term in found:
        if term.key not in _ALLOWED:
            raise SpecError(
                f"a probe cannot have the term {str(term)!r}; expected {', '.join(_ALLOWED)}",
                str(term),
            )
    return found


def _pmu(name: str, typed: Typed) -> Pmu:
    try:
        return pmus.load(name)
    except FileNotFoundError:
        raise SpecError(
            f"{typed.head!r} needs {name}s, and this kernel has none: there is no "
            f"{pmus.DEVICES / name} (CONFIG_{name.upper()}_EVENTS is off)",
            typed.head,
            errno=errno.ENODEV,
        ) from None


def _in_file(kind: str, rest: str) -> tuple[str, str, int]:
    """PATH:FUNCTION[+PLUS] or PATH:OFFSET → how it is spelled, the file, the offset in it."""
    path, colon, target = rest.rpartition(":")
    if not colon or not path or not target:
        raise SpecError(
            f"'{kind}:{rest}' is no probe",
            rest,
            hint=f"write {kind}:PATH:FUNCTION, {kind}:PATH:FUNCTION+0x10 or {kind}:PATH:0xOFFSET",
        )
    # The kernel looks from the directory of whoever opens the event: that may be another time.
    path = os.path.abspath(path)
    if _NUMBER.fullmatch(target):
        if not os.path.isfile(path):
            raise SpecError(f"there is no file {path}", path, errno=errno.ENOENT)
        return f"{path}:{target}", path, terms.number(target, "offset")
    symbol, plus = _plus(target)
    return f"{path}:{target}", path, elf.function_offset(path, symbol) + plus


def _in_kernel(kind: str, rest: str) -> tuple[str, str | None, int]:
    """FUNCTION[+PLUS] or ADDRESS → how it is spelled, the function, the offset in it."""
    if not rest:
        raise SpecError(f"'{kind}:' names no function", kind, hint=f"write {kind}:FUNCTION")
    if _NUMBER.fullmatch(rest):
        return rest, None, terms.number(rest, "address")
    symbol, plus = _plus(rest)
    return rest, symbol, plus


def _plus(target: str) -> tuple[str, int]:
    """Split "main+0x10" into main and 16. A C++ name may have a + of its own: only a number counts."""
    symbol, plus, number = target.rpartition("+")
    if plus and _NUMBER.fullmatch(number):
        return symbol, terms.number(number, "offset")
    return target, 0
