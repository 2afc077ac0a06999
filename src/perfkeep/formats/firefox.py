"""The Firefox Profiler's processed profile, version 58, as its src/types/profile.ts has it; later
versions of https://profiler.firefox.com bring older ones up to date themselves.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from perfkeep.formats.sampled import Facts, Row, Sampled

VERSION = 58
#: Of the Gecko format that the processed one is made from; nothing here depends on it.
_GECKO_VERSION = 31
_OTHER, _KERNEL, _USER = range(3)
_CATEGORIES = [
    {"name": "Other", "color": "grey", "subcategories": ["Other"]},
    {"name": "Kernel", "color": "orange", "subcategories": ["Other"]},
    {"name": "User", "color": "yellow", "subcategories": ["Other"]},
]
_LIBRARY = 1  # resourceTypes.library


class _Numbers:
    """Numbers things by the order in which they come."""

    def __init__(self) -> None:
        self.of: dict[Any, int] = {}

    def __call__(self, one: Any) -> int:
        return self.of.setdefault(one, len(self.of))


def firefox(sampled: Sampled, facts: Facts, count_samples: bool = False) -> dict[str, Any]:
    """The document to be written, with a track for every thread.

    Args:
        count_samples: each sample has the weight 1, instead of its period.
    """
    strings, libs = _Numbers(), _Numbers()
    rows = sampled.rows
    count_samples = count_samples or all(row.period == 1 for row in rows)
    begin, end = (rows[0].time, rows[-1].time) if rows else (0, 0)
    threads: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        threads.setdefault((row.pid, row.tid if row.pid else row.cpu), []).append(row)
    names = {pid: row.comm for row in rows for pid in (row.pid,) if row.pid == row.tid}
    meta = {
        "interval": max(0.001, _interval(threads.values())),
        "startTime": (begin + (sampled.wall_offset_ns or 0)) / 1e6,
        "profilingStartTime": 0,
        "profilingEndTime": (end - begin) / 1e6,
        "processType": 0,
        "product": f"{sampled.event} on {facts.host or 'a machine'}",
        "importedFrom": "perfkeep",
        "stackwalk": 1,
        "version": _GECKO_VERSION,
        "preprocessedProfileVersion": VERSION,
        "categories": _CATEGORIES,
        "markerSchema": [],
        "symbolicated": True,
        "symbolicationNotSupported": True,
        "usesOnlyOneStackType": True,
        "sourceCodeIsNotOnSearchfox": True,
        "oscpu": f"Linux {facts.release} {facts.machine}".strip(),
        "platform": "Linux",
        "CPUName": facts.cpu,
        "logicalCPUs": facts.cpus,
        "sampleUnits": {"time": "ms", "eventDelay": "ms", "threadCPUDelta": "ns"},
    }
    made = [
        _Thread(sampled, strings, libs, count_samples).document(some, begin, names)
        for _, some in sorted(threads.items())
    ]
    return {
        "meta": meta,
        "libs": [_lib(path, facts.machine) for path in libs.of],
        "shared": {
            "stringArray": list(strings.of),
            "sources": {"length": 0, "uuid": [], "filename": []},
        },
        "threads": made,
    }


def _interval(threads: Iterable[list[Row]]) -> float:
    """The shortest of the usual times between two samples of one thread, in ms."""
    shortest = 1e9
    for rows in threads:
        steps = sorted(two.time - one.time for one, two in pairwise(rows))
        if steps:
            shortest = min(shortest, steps[len(steps) // 2])
    return shortest / 1e6


def _lib(path: str, machine: str) -> dict[str, Any]:
    name = os.path.basename(path) or path
    return {
        "arch": machine, "name": name, "path": path, "debugName": name, "debugPath": path,
        "breakpadId": "", "codeId": None,
    }  # fmt: skip


class _Thread:
    """The tables of one thread: only what its own samples need."""

    def __init__(
        self, sampled: Sampled, strings: _Numbers, libs: _Numbers, count_samples: bool
    ) -> None:
        self.sampled, self.strings, self.libs = sampled, strings, libs
        self.count_samples = count_samples
        self.functions = _Numbers()
        self.resources = _Numbers()
        self.nodes = _Numbers()
        self._stacks: dict[int, int | None] = {}

    def _stack(self, which: int) -> int | None:
        if which not in self._stacks:
            at: int | None = None
            for frame in self.sampled.stacks[which]:
                at = self.nodes((at, self.functions(frame)))
            self._stacks[which] = at
        return self._stacks[which]

    def document(self, rows: list[Row], begin: int, names: dict[int, str]) -> dict[str, Any]:
        """
        Args:
            names: of processes.
        """
        first, last = rows[0], rows[-1]
        idle = not first.pid
        stacks = [self._stack(row.stack) for row in rows]
        return {
            "processType": "default",
            "processStartupTime": 0,
            "processShutdownTime": None,
            "registerTime": 0,
            "unregisterTime": None,
            "pausedRanges": [],
            "name": f"{last.comm} CPU {first.cpu}" if idle else last.comm,
            "isMainThread": first.pid == first.tid and not (idle and first.cpu),
            "processName": names.get(first.pid, f"process {first.pid}"),
            "pid": str(first.pid),
            "tid": f"CPU {first.cpu}" if idle else first.tid,
            "samples": {
                "stack": stacks,
                "time": [(row.time - begin) / 1e6 for row in rows],
                **self._weights(rows),
                "length": len(rows),
            },
            "markers": _table("data", "name", "startTime", "endTime", "phase", "category"),
            "stackTable": {
                "frame": [frame for _, frame in self.nodes.of],
                "prefix": [prefix for prefix, _ in self.nodes.of],
                "length": len(self.nodes.of),
            },
            "frameTable": self._frames(),
            "funcTable": self._functions(),
            "resourceTable": self._resources(),
            "nativeSymbols": _table("libIndex", "address", "name", "functionSize"),
        }

    def _weights(self, rows: list[Row]) -> dict[str, Any]:
        """The weight of each sample: ms of a clock, or the number of events it stands for."""
        if self.count_samples:
            return {"weight": None, "weightType": "samples"}
        if self.sampled.attr.is_clock:
            return {"weight": [row.period / 1e6 for row in rows], "weightType": "tracing-ms"}
        return {"weight": [row.period for row in rows], "weightType": "samples"}

    def _frames(self) -> dict[str, Any]:
        """One for each function: samples say no more."""
        count = len(self.functions.of)
        files = [self.sampled.functions[one][1] for one in self.functions.of]
        return {
            "address": [-1] * count,
            "inlineDepth": [0] * count,
            "category": [
                _KERNEL if file == "[kernel]" else _USER if file else _OTHER for file in files
            ],
            "subcategory": [0] * count,
            "func": list(range(count)),
            "nativeSymbol": [None] * count,
            "innerWindowID": [0] * count,
            "line": [None] * count,
            "column": [None] * count,
            "length": count,
        }

    def _functions(self) -> dict[str, Any]:
        some = [self.sampled.functions[one] for one in self.functions.of]
        count = len(some)
        return {
            "name": [self.strings(name) for name, _ in some],
            "isJS": [False] * count,
            "relevantForJS": [False] * count,
            "resource": [self.resources(file) if file else -1 for _, file in some],
            "source": [None] * count,
            "lineNumber": [None] * count,
            "columnNumber": [None] * count,
            "length": count,
        }

    def _resources(self) -> dict[str, Any]:
        files = list(self.resources.of)
        return {
            "lib": [self.libs(file) for file in files],
            "name": [self.strings(os.path.basename(file) or file) for file in files],
            "host": [None] * len(files),
            "type": [_LIBRARY] * len(files),
            "length": len(files),
        }


def _table(*columns: str) -> dict[str, Any]:
    """An empty one."""
    return {**{name: [] for name in columns}, "length": 0}
