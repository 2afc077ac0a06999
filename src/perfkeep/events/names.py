"""Events that have a name of their own on every machine: hardware, software, cache. Pure.

The names are those of perf's event parser (tools/perf/util/parse-events.l of Linux 6.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from perfkeep.abi.event_names import (
    CACHES,
    HARDWARE,
    OPERATIONS,
    POSSIBLE,
    RESULTS,
    SOFTWARE,
    cache_names,
)
from perfkeep.abi.perf_event import Attr, Type

_RAW = re.compile(r"r(?:0x)?0*([0-9a-fA-F]{1,16})")


def _numbers(table: tuple[tuple[str, ...], ...]) -> dict[str, int]:
    return {alias.lower(): number for number, names in enumerate(table) for alias in names}


_READ, _ACCESS = 0, 0
_CACHE_NUMBER = _numbers(CACHES)
_OPERATION, _RESULT = _numbers(OPERATIONS), _numbers(RESULTS)


def _any_of(names: dict[str, int]) -> str:
    # The longest first: "loads" begins with "load".
    return "|".join(sorted(names, key=len, reverse=True))


_CACHE = re.compile(
    rf"(?P<cache>{_any_of(_CACHE_NUMBER)})"
    rf"(?:-(?P<op>{_any_of(_OPERATION)}))?(?:-(?P<result>{_any_of(_RESULT)}))?"
    rf"(?:-(?P<op_after>{_any_of(_OPERATION)}))?"
)


def attr_of(name: str) -> Attr | None:
    """The type and config of "cycles", "cs", "L1-dcache-load-misses" or "r1a8"."""
    if name in HARDWARE:
        return Attr(type=Type.HARDWARE, config=HARDWARE[name])
    if name in SOFTWARE:
        return Attr(type=Type.SOFTWARE, config=SOFTWARE[name])
    if raw := _RAW.fullmatch(name):
        return Attr(type=Type.RAW, config=int(raw[1], 16))
    return _cache(name)


def _cache(name: str) -> Attr | None:
    """Cache, operation, result, the last two in either order: what is left out is read access."""
    match = _CACHE.fullmatch(name.lower())
    if not match or (match["op"] and match["op_after"]):
        return None
    cache = _CACHE_NUMBER[match["cache"]]
    op = _OPERATION.get(match["op"] or match["op_after"] or "", _READ)
    result = _RESULT.get(match["result"] or "", _ACCESS)
    if op not in POSSIBLE[cache]:
        return None
    return Attr(type=Type.HW_CACHE, config=cache | op << 8 | result << 16)


def all_names() -> Iterator[str]:
    """Every name, for suggestions; of the cache events those that `perf list` prints."""
    yield from HARDWARE
    yield from SOFTWARE
    yield from cache_names().values()
