"""The samples of one event, each with its time, its thread and its stack."""

from __future__ import annotations

import sys
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from perfkeep.abi.perf_data import Feature
from perfkeep.analysis.stacks import Chains, Frames
from perfkeep.errors import UsageError
from perfkeep.formats.sampled import Facts, Row, Sampled
from perfkeep.records.cells import values

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data
    from perfkeep.records.columns import Rows


def listed(rows: Rows, name: str, otherwise: Any) -> list[Any]:
    """A column, row by row; `otherwise` in each where there is none of that name."""
    column = rows.get(name)
    return [otherwise] * len(rows) if column is None else values(column)


def sampled(data: Data, name: str) -> Sampled:
    """
    Raises:
        UsageError: there is no such table, or it does not say where or when.
    """
    table = data.table(name)
    if "time" not in table.names:
        raise UsageError(f"{table.kind.name} does not record when its samples were taken")
    chains = Chains(table, data.symbolizer)
    wanted = (("time", 0), ("pid", 0), ("tid", 0), ("cpu", 0), ("comm", ""), ("period", 1))
    read = [
        ([listed(rows, *one) for one in wanted], chains.numbers(rows)) for rows in table.batches()
    ]
    frames, functions = chains.frames()
    data.remark(chains.remarks)
    # Different addresses of the same functions are one stack.
    stacks: dict[Frames, int] = {}
    codes = [stacks.setdefault(one, len(stacks)) for one in frames]
    rows = [
        Row(time, pid, tid, cpu, comm, codes[number], period)
        for columns, numbers in read
        for time, pid, tid, cpu, comm, period, number in zip(*columns, numbers, strict=True)
    ]
    rows.sort(key=attrgetter("time"))
    return Sampled(
        table.kind.name,
        [(one.name, one.file) for one in functions],
        list(stacks),
        rows,
        data.wall_offset_ns,
        table.kind.attr,
    )


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
