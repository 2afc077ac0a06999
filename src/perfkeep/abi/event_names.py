"""Names of the events that every machine has: hardware, software, cache. Pure.

Source: tools/perf/util/parse-events.l and evsel.c of Linux 6.1. Events of other PMUs have their
names in sysfs, tracepoints theirs in tracefs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from perfkeep.abi.perf_event import Attr, Flag, Hardware, Software, Type

# Of several names the first is the one that perf shows where a file has none.
HARDWARE = {
    "cycles": Hardware.CPU_CYCLES,
    "cpu-cycles": Hardware.CPU_CYCLES,
    "instructions": Hardware.INSTRUCTIONS,
    "cache-references": Hardware.CACHE_REFERENCES,
    "cache-misses": Hardware.CACHE_MISSES,
    "branches": Hardware.BRANCH_INSTRUCTIONS,
    "branch-instructions": Hardware.BRANCH_INSTRUCTIONS,
    "branch-misses": Hardware.BRANCH_MISSES,
    "bus-cycles": Hardware.BUS_CYCLES,
    "stalled-cycles-frontend": Hardware.STALLED_CYCLES_FRONTEND,
    "idle-cycles-frontend": Hardware.STALLED_CYCLES_FRONTEND,
    "stalled-cycles-backend": Hardware.STALLED_CYCLES_BACKEND,
    "idle-cycles-backend": Hardware.STALLED_CYCLES_BACKEND,
    "ref-cycles": Hardware.REF_CPU_CYCLES,
}

SOFTWARE = {
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
CACHES = (
    ("L1-dcache", "l1-d", "l1d", "L1-data"),
    ("L1-icache", "l1-i", "l1i", "L1-instruction"),
    ("LLC", "L2"),
    ("dTLB", "d-tlb", "Data-TLB"),
    ("iTLB", "i-tlb", "Instruction-TLB"),
    ("branch", "branches", "bpu", "btb", "bpc"),
    ("node",),
)
OPERATIONS = (
    ("load", "loads", "read"),
    ("store", "stores", "write"),
    ("prefetch", "prefetches", "speculative-read", "speculative-load"),
)
RESULTS = (("refs", "Reference", "ops", "access"), ("misses", "miss"))

# What a cache can be asked for; the instruction side and the branch unit are never written to.
POSSIBLE = ((0, 1, 2), (0, 2), (0, 1, 2), (0, 1, 2), (0,), (0,), (0, 1, 2))


@cache
def cache_names() -> Mapping[int, str]:
    """Names of cache events by config, as `perf list` prints them."""
    names: dict[int, str] = {}
    for number, ((name, *_), possible) in enumerate(zip(CACHES, POSSIBLE, strict=True)):
        for operation in possible:
            singular, plural = OPERATIONS[operation][:2]
            config = number | operation << 8
            names[config] = f"{name}-{plural}"
            names[config | 1 << 16] = f"{name}-{singular}-misses"
    return names


def name_of(attr: Attr) -> str | None:
    """The name of a generic or raw event, without modifiers; None: its name is not in its attr."""
    type, config = attr.generic
    if type == Type.RAW:
        return f"r{config:x}"
    if type == Type.HW_CACHE:
        return cache_names().get(config)
    tables: Mapping[int, Mapping[str, int]] = {Type.HARDWARE: HARDWARE, Type.SOFTWARE: SOFTWARE}
    return next((name for name, number in tables.get(type, {}).items() if number == config), None)


def recorded_name(attr: Attr) -> str:
    """The name that perf shows for an event of a file that has no name for it."""
    if attr.type == Type.BREAKPOINT:
        name = f"mem:{attr.config1:#x}:{_access(attr.bp_type)}"
    elif attr.type == Type.TRACEPOINT:
        return f"tracepoint:{attr.config}"
    else:
        name = name_of(attr) or f"{attr.type}:{attr.config:#x}"
    letters = _modifiers(attr)
    return f"{name}:{letters}" if letters else name


def _access(bp_type: int) -> str:
    return "".join(letter for letter, bit in (("r", 1), ("w", 2), ("x", 4)) if bp_type & bit)


def _modifiers(attr: Attr) -> str:
    """The letters of evsel__add_modifiers(): perf leaves out guests unless it is told otherwise, so
    it shows H and G where an attr differs from that.
    """
    flags, letters = attr.flags, ""
    levels = {"k": Flag.EXCLUDE_KERNEL, "u": Flag.EXCLUDE_USER, "h": Flag.EXCLUDE_HV}
    if any(flags & flag for flag in levels.values()):
        letters += "".join(letter for letter, flag in levels.items() if not flags & flag)
    without_guests = bool(letters or attr.precise_ip)
    letters += "p" * attr.precise_ip
    if flags & Flag.EXCLUDE_HOST or bool(flags & Flag.EXCLUDE_GUEST) == without_guests:
        sides = {"H": Flag.EXCLUDE_HOST, "G": Flag.EXCLUDE_GUEST}
        letters += "".join(letter for letter, flag in sides.items() if not flags & flag)
    return letters
