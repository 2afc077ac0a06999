"""PMUs as sysfs describes them: type, format bits, named events, the CPUs to open them on.

Reads /sys/bus/event_source/devices; what a user typed is matched with it in `events`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from perfkeep.kernel import cpus

#: Each folder in it is a PMU.
DEVICES = Path("/sys/bus/event_source/devices")

#: What a format file may name, as fields of the attr.
FIELDS = ("config", "config1", "config2", "config3")

# Files beside an event that tell `perf stat` how to print it.
_NOT_EVENTS = (".scale", ".unit", ".per-pkg", ".snapshot")


class Bits(NamedTuple):
    """Where a term's value goes: bit i of the value to bit `positions[i]` of the attr's field."""

    field: str
    positions: tuple[int, ...]

    @property
    def greatest(self) -> int:
        return (1 << len(self.positions)) - 1

    def place(self, value: int) -> int:
        """The value, spread over the field's bits."""
        return sum(1 << at for i, at in enumerate(self.positions) if value >> i & 1)


class Pmu(NamedTuple):
    """One PMU.

    Attributes:
        type: what attr.type must be.
        formats: the terms it knows.
        events: its named events, each as terms: "event=0x3c,umask=0x00".
        cpus: the CPUs that its events are opened on; None: any.
    """

    name: str
    type: int
    formats: Mapping[str, Bits]
    events: Mapping[str, str]
    cpus: tuple[int, ...] | None


def names() -> list[str]:
    """The PMUs of this machine, sorted."""
    return _listed(DEVICES)


def type_of(name: str) -> int:
    """Its number, for attr.type.

    Raises:
        FileNotFoundError: there is no PMU of that name.
    """
    return int(_text(DEVICES / name / "type"))


def probe_types() -> set[int]:
    """attr.type of uprobes and of kprobes, of those that this kernel has."""
    types = set()
    for name in ("uprobe", "kprobe"):
        with suppress(OSError):
            types.add(type_of(name))
    return types


def load(name: str) -> Pmu:
    """One PMU.

    Raises:
        FileNotFoundError: there is none of that name.
    """
    folder = DEVICES / name
    type_ = type_of(name)
    found = {term: parse_bits(text) for term, text in _files(folder / "format").items()}
    return Pmu(name, type_, {term: bits for term, bits in found.items() if bits},
               _events(folder), _cpus(folder))  # fmt: skip


def with_event(event: str) -> list[str]:
    """The PMUs that have a named event of this name."""
    return [name for name in names() if event in _listed(DEVICES / name / "events")]


def all_events() -> list[tuple[str, str]]:
    """(PMU, event) of every named event."""
    return [(name, event) for name in names() for event in _events(DEVICES / name)]


def parse_bits(text: str) -> Bits | None:
    """Read "config:0-7,21": bits 0 to 7 and 21 of config. None: of a kind that is not known here."""
    field, _, ranges = text.strip().partition(":")
    positions: list[int] = []
    for part in ranges.split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal()) or int(last) > 63:
            return None
        positions.extend(range(int(first), int(last) + 1))
    return Bits(field, tuple(positions)) if field in FIELDS and positions else None


def _text(path: Path) -> str:
    return path.read_text().strip()


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _files(folder: Path) -> dict[str, str]:
    return {name: _text(folder / name) for name in _listed(folder)}


def _events(folder: Path) -> dict[str, str]:
    found = _files(folder / "events")
    return {name: text for name, text in found.items() if not name.endswith(_NOT_EVENTS)}


def _cpus(folder: Path) -> tuple[int, ...] | None:
    """`cpumask`: one CPU of each package or so, for what is counted once for many CPUs; `cpus`:
    those of one kind, where a machine has several."""
    for name in ("cpumask", "cpus"):
        path = folder / name
        if path.is_file() and (text := _text(path)):
            return cpus.parse_list(text)
    return None
