"""The samples of one event, each with its time, its thread and its stack."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from perfkeep.abi.perf_data import Feature
from perfkeep.abi.perf_event import Flag
from perfkeep.analysis.stacks import frames
from perfkeep.errors import UsageError
from perfkeep.formats.sampled import Facts, Row, Sampled

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data
    from perfkeep.records.columns import Table


def texts(table: Table, name: str) -> list[str]:
    """A column of text, row by row; "" where the table has none of that name."""
    column = table.get(name)
    if column is None or column.offsets is None:
        return [""] * len(table)
    whole = column.values.tobytes()
    known: dict[bytes, str] = {}
    found = []
    for at, end in pairwise(column.offsets.tolist()):
        raw = whole[at:end]
        if raw not in known:
            known[raw] = raw.decode(errors="replace")
        found.append(known[raw])
    return found


def numbers(table: Table, name: str, otherwise: int = 0) -> list[int]:
    """A column of integers, row by row."""
    column = table.get(name)
    if column is None or column.offsets is not None:
        return [otherwise] * len(table)
    found: list[int] = column.values.tolist()
    return found


def sampled(data: Data, name: str) -> Sampled:
    """
    Raises:
        UsageError: there is no such table, or it does not say where or when.
    """
    table = data.table(name)
    time = table.get("time")
    if time is None:
        raise UsageError(f"{table.kind.name} does not record when its samples were taken")
    offsets, codes, functions = frames(table, data.symbolizer)
    flat, known = codes.tolist(), dict[tuple[int, ...], int]()
    stacks = [
        known.setdefault(tuple(flat[at:end][::-1]), len(known))
        for at, end in pairwise(offsets.tolist())
    ]
    period = table.kind.attr.sample_period if not _by_frequency(table) else 1
    rows = list(
        map(
            Row,
            time.values.tolist(),
            numbers(table, "pid"),
            numbers(table, "tid"),
            numbers(table, "cpu"),
            texts(table, "comm"),
            stacks,
            numbers(table, "period", period),
        )
    )
    order = np.argsort(time.values, kind="stable").tolist()
    return Sampled(
        table.kind.name,
        [(one.name, one.file) for one in functions],
        list(known),
        [rows[at] for at in order],
        data.wall_offset_ns,
    )


def _by_frequency(table: Table) -> bool:
    """Whether the attr says how often to sample, and not how many stand for one sample."""
    return bool(table.kind.attr.flags & Flag.FREQ)


def facts(data: Data) -> Facts:
    """What the file says of its machine."""
    file = data.file
    cpus = bytes(file.features.get(Feature.NRCPUS, b"")[4:8])
    return Facts(
        file.text(Feature.HOSTNAME) or "",
        file.text(Feature.OSRELEASE) or "",
        file.text(Feature.ARCH) or "",
        file.text(Feature.CPUDESC) or "",
        int.from_bytes(cpus, sys.byteorder),
    )
