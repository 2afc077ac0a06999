"""Events that have a name of their own on every machine: hardware, software, cache. Pure.

The names are those of perf's event parser (tools/perf/util/parse-events.l of Linux 6.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from perfkeep.abi.perf_event import Attr, Hardware, Software, Type

_HARDWARE = {
    "cpu-cycles": Hardware.CPU_CYCLES,
    "cycles": Hardware.CPU_CYCLES,
    "instructions": Hardware.INSTRUCTIONS,
    "cache-references": Hardware.CACHE_REFERENCES,
    "cache-misses": Hardware.CACHE_MISSES,
    "branch-instructions": Hardware.BRANCH_INSTRUCTIONS,
    "branches": Hardware.BRANCH_INSTRUCTIONS,
    "branch-misses": Hardware.BRANCH_MISSES,
    "bus-cycles": Hardware.BUS_CYCLES,
    "stalled-cycles-frontend": Hardware.STALLED_CYCLES_FRONTEND,
    "idle-cycles-frontend": Hardware.STALLED_CYCLES_FRONTEND,
    "stalled-cycles-backend": Hardware.STALLED_CYCLES_BACKEND,
    "idle-cycles-backend": Hardware.STALLED_CYCLES_BACKEND,
    "ref-cycles": Hardware.REF_CPU_CYCLES,
}

_SOFTWARE = {
    "cpu-clock": Software.CPU_CLOCK,
    "task-clock": Software.TASK_CLOCK,
    "page-faults": Software.PAGE_FAULTS,
    "faults": Software.PAGE_FAULTS,
    "context-switches": Software.CONTEXT_SWITCHES,
    "cs": Software.CONTEXT_SWITCHES,
    "cpu-migrations": Software.CPU_MIGRATIONS,
    "migrations": Software.CPU_MIGRATIONS,
    "minor-faults": Software.PAGE_FAULTS_MIN,
    "major-faults": Software.PAGE_FAULTS_MAJ,
    "alignment-faults": Software.ALIGNMENT_FAULTS,
    "emulation-faults": Software.EMULATION_FAULTS,
    "dummy": Software.DUMMY,
    "bpf-output": Software.BPF_OUTPUT,
    "cgroup-switches": Software.CGROUP_SWITCHES,
    # perf opens a dummy for these and fills in the figure when it prints: what the kernel knows
    # of duration_time is the time that the event was enabled.
    "duration_time": Software.DUMMY,
    "user_time": Software.DUMMY,
    "system_time": Software.DUMMY,
}

# enum perf_hw_cache_id, _op_id and _op_result_id: the position is the number.
_CACHES = (
    ("L1-dcache", "l1-d", "l1d", "L1-data"),
    ("L1-icache", "l1-i", "l1i", "L1-instruction"),
    ("LLC", "L2"),
    ("dTLB", "d-tlb", "Data-TLB"),
    ("iTLB", "i-tlb", "Instruction-TLB"),
    ("branch", "branches", "bpu", "btb", "bpc"),
    ("node",),
)
_OPERATIONS = (
    ("load", "loads", "read"),
    ("store", "stores", "write"),
    ("prefetch", "prefetches", "speculative-read", "speculative-load"),
)
_RESULTS = (("refs", "Reference", "ops", "access"), ("misses", "miss"))
_READ, _ACCESS = 0, 0

# What a cache can be asked for; the instruction side and the branch unit are never written to.
_POSSIBLE = ((0, 1, 2), (0, 2), (0, 1, 2), (0, 1, 2), (0,), (0,), (0, 1, 2))

_RAW = re.compile(r"r(?:0x)?0*([0-9a-fA-F]{1,16})")


def _numbers(table: tuple[tuple[str, ...], ...]) -> dict[str, int]:
    return {alias.lower(): number for number, names in enumerate(table) for alias in names}


_CACHE_NUMBER = _numbers(_CACHES)
_OPERATION, _RESULT = _numbers(_OPERATIONS), _numbers(_RESULTS)


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
    if name in _HARDWARE:
        return Attr(type=Type.HARDWARE, config=_HARDWARE[name])
    if name in _SOFTWARE:
        return Attr(type=Type.SOFTWARE, config=_SOFTWARE[name])
    if raw := _RAW.fullmatch(name):
        return Attr(type=Type.RAW, config=int(raw[1], 16))
    return _cache(name)


def name_of(attr: Attr) -> str | None:
    """The way back, of a type up to RAW: of several names the one that `perf list` prints first."""
    if attr.type == Type.RAW:
        return f"r{attr.config:x}"
    if attr.type in (Type.TRACEPOINT, Type.BREAKPOINT):
        return None
    if attr.type == Type.HW_CACHE:
        return next((name for name in _cache_names() if _cache(name) == _plain(attr)), None)
    table: Mapping[str, int] = _HARDWARE if attr.type == Type.HARDWARE else _SOFTWARE
    return next((name for name, number in table.items() if number == attr.config), None)


def _plain(attr: Attr) -> Attr:
    return Attr(type=attr.type, config=attr.config)


def _cache(name: str) -> Attr | None:
    """Cache, operation, result, the last two in either order: what is left out is read access."""
    match = _CACHE.fullmatch(name.lower())
    if not match or (match["op"] and match["op_after"]):
        return None
    cache = _CACHE_NUMBER[match["cache"]]
    op = _OPERATION.get(match["op"] or match["op_after"] or "", _READ)
    result = _RESULT.get(match["result"] or "", _ACCESS)
    if op not in _POSSIBLE[cache]:
        return None
    return Attr(type=Type.HW_CACHE, config=cache | op << 8 | result << 16)


def all_names() -> Iterator[str]:
    """Every name, for suggestions; of the cache events those that `perf list` prints."""
    yield from _HARDWARE
    yield from _SOFTWARE
    yield from _cache_names()


def _cache_names() -> Iterator[str]:
    for (cache, *_), possible in zip(_CACHES, _POSSIBLE, strict=True):
        for operation in possible:
            singular, plural = _OPERATIONS[operation][:2]
            yield f"{cache}-{plural}"
            yield f"{cache}-{singular}-misses"
