"""Call stacks of samples, and how often each was seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfkeep.analysis.symbolize import CONTEXTS, Function, Symbolizer
from perfkeep.errors import UsageError
from perfkeep.records.cells import behind
from perfkeep.records.columns import Table

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data

Ints = NDArray[Any]


#: What samples can be put together by, beside their stacks.
GROUPS = ("comm", "pid", "tid", "cpu")

Key = tuple[str | int, ...]
Frames = tuple[int, ...]


class Stacks(NamedTuple):
    """The samples of one event by their stacks.

    Attributes:
        event: its name.
        functions: that frames are numbered by.
        counts: (what they were put together by, frames from the outermost to the innermost) →
            samples.
    """

    event: str
    functions: list[Function]
    counts: Counter[tuple[Key, Frames]]

    def named(self) -> list[tuple[list[tuple[str, str]], int]]:
        """Each stack as (function, file), and how often it was seen; what the samples were put
        together by is the outermost frame.
        """
        return [
            ([(str(key[0]), ""), *(self.functions[one] for one in chain)], count)
            for (key, chain), count in self.counts.most_common()
        ]


def frames(table: Table, symbolizer: Symbolizer) -> tuple[Ints, Ints, list[Function]]:
    """(offsets, codes, functions): row i has the frames `codes[offsets[i]:offsets[i + 1]]`, the
    innermost first, and of functions that were compiled into others as well; just its own address
    where the event records no call chain.

    Raises:
        UsageError: it records neither.
    """
    pid, chain, ip = table.get("pid"), table.get("callchain"), table.get("ip")
    if pid is None or (chain is None and ip is None):
        raise UsageError(f"{table.kind.name} does not record where its samples were taken")
    spaces = symbolizer.mappings.of(table)
    if chain is None or chain.offsets is None:
        assert ip is not None
        lengths, codes, functions = symbolizer.frames(spaces, ip.values)
        return behind(lengths), codes, functions
    spaces = np.repeat(spaces, np.diff(chain.offsets))
    real = chain.values < np.uint64(CONTEXTS)
    lengths, codes, functions = symbolizer.frames(spaces[real], chain.values[real])
    kept = np.append(0, np.cumsum(real))
    return behind(lengths)[kept[chain.offsets]], codes, functions


def stacks(
    data: Data,
    name: str,
    by: Sequence[str] = ("comm",),
    span: tuple[int | None, int | None] = (None, None),
) -> Stacks:
    """
    Args:
        by: some of GROUPS.
        span: only samples from the first to the last of these ns.

    Raises:
        UsageError: there is no such table, or it says nothing of places, or not whose they are.
    """
    table = data.table(name)
    offsets, codes, functions = frames(table, data.symbolizer)
    keys = list(zip(*(_values(table, one) for one in by), strict=True)) if by else [()] * len(table)
    whole, bounds = codes.tolist(), offsets.tolist()
    rows = _within(table, *span)
    counts: Counter[tuple[Key, Frames]] = Counter(
        (keys[row], tuple(whole[bounds[row] : bounds[row + 1]][::-1])) for row in rows
    )
    return Stacks(table.kind.name, functions, counts)


def _within(table: Table, first: int | None, last: int | None) -> Sequence[int]:
    """The rows of that time."""
    time = table.get("time")
    if time is None or (first is None and last is None):
        return range(len(table))
    kept = np.ones(len(table), bool)
    if first is not None:
        kept &= time.values.astype("i8") >= first
    if last is not None:
        kept &= time.values.astype("i8") <= last
    rows: list[int] = np.nonzero(kept)[0].tolist()
    return rows


def _values(table: Table, name: str) -> list[str] | list[int]:
    column = table.get(name)
    if name not in GROUPS or column is None:
        raise UsageError(f"{table.kind.name} says nothing of {name!r}")
    if column.offsets is None:
        return list(column.values.tolist())
    text = column.values.tobytes()
    return [text[at:end].decode() for at, end in pairwise(column.offsets.tolist())]


class Share(NamedTuple):
    """How many samples were taken in something itself, and in all that it called.

    Attributes:
        values: what it is: comm, pid, tid, cpu; sym and dso of the function.
    """

    values: dict[str, str | int]
    self: int
    total: int


def shares(found: Stacks, by: Sequence[str], keys: Sequence[str] = ("comm",)) -> list[Share]:
    """The one with most samples of its own first.

    Args:
        by: "sym", "dso", both or neither.
        keys: what `found` was put together by.
    """
    names = {"sym": 0, "dso": 1}
    parts = [tuple(one[names[name]] for name in by) for one in found.functions]
    own: Counter[tuple[Key, Key]] = Counter()
    total: Counter[tuple[Key, Key]] = Counter()
    for (key, chain), count in found.counts.items():
        own[key, parts[chain[-1]] if chain else ("",) * len(by)] += count
        for one in {parts[at] for at in chain} if by else {()}:
            total[key, one] += count
    rows = [
        Share(dict(zip([*keys, *by], [*key, *part], strict=True)), own[key, part], total[key, part])
        for key, part in total.keys() | own.keys()
    ]
    return sorted(rows, key=lambda row: (-row.self, -row.total, *map(str, row.values.values())))


def default_event(data: Data) -> str:
    """The one whose samples say best where time went: one with call chains before others, of a
    clock before others, the most frequent before others.

    Raises:
        UsageError: none says where its samples were taken.
    """
    able = [
        (
            table.get("callchain") is not None,
            table.kind.name.split("/")[0] in ("cpu-clock", "task-clock", "cycles", "cpu-cycles"),
            len(table),
            name,
        )
        for name, table in data.tables.items()
        if table.get("pid") is not None
        and (table.get("callchain") is not None or table.get("ip") is not None)
        and len(table)
    ]
    clocks = [one for one in able if one[1]] or able
    if not clocks:
        raise UsageError("no event of this file says where its samples were taken")
    return max(clocks)[3]
