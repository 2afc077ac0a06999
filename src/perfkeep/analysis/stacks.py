"""Call stacks of samples, and how often each was seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import compress, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfkeep.analysis.symbolize import CONTEXTS, Function, Symbolizer
from perfkeep.errors import UsageError
from perfkeep.records.cells import behind, values
from perfkeep.records.columns import Rows, Table

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


class Chains:
    """Call chains, each once: of many samples few differ, and only these need names. Where an event
    records none, a chain is just the sample's own address.
    """

    def __init__(self, table: Table, symbolizer: Symbolizer) -> None:
        """
        Raises:
            UsageError: the event records neither.
        """
        if "pid" not in table.names or not {"callchain", "ip"} & set(table.names):
            raise UsageError(f"{table.kind.name} does not record where its samples were taken")
        self._symbolizer = symbolizer
        self._chained = "callchain" in table.names
        self._known: dict[tuple[int, bytes], int] = {}

    def numbers(self, rows: Rows) -> list[int]:
        """Of these samples' chains."""
        found = rows.get("callchain" if self._chained else "ip")
        assert found is not None
        if found.offsets is None:
            bounds = np.arange(0, 8 * len(found) + 1, 8).tolist()
        else:
            bounds = (8 * found.offsets).tolist()
        whole, known = found.values.tobytes(), self._known
        spaces = self._symbolizer.mappings.of(rows).tolist()
        return [
            known.setdefault((space, whole[at:end]), len(known))
            for space, (at, end) in zip(spaces, pairwise(bounds), strict=True)
        ]

    def frames(self) -> tuple[list[Frames], list[Function]]:
        """Of each number the frames, from the outermost to the innermost, and the functions that these
        are numbered by; functions that were compiled into others are frames of their own.
        """
        chains = [np.frombuffer(chain, "u8") for _, chain in self._known]
        sizes = [len(one) for one in chains]
        flat = np.concatenate([np.empty(0, "u8"), *chains])
        spaces = np.repeat(np.array([space for space, _ in self._known], "i8"), sizes)
        real = flat < np.uint64(CONTEXTS)
        lengths, codes, functions = self._symbolizer.frames(spaces[real], flat[real])
        bounds = behind(lengths)[np.append(0, np.cumsum(real))[behind(np.array(sizes, "i8"))]]
        inner = codes[::-1].tolist()
        count = len(inner)
        found = [tuple(inner[count - end : count - at]) for at, end in pairwise(bounds.tolist())]
        return found, functions


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
    for one in by:
        if one not in GROUPS or one not in table.names:
            raise UsageError(f"{table.kind.name} says nothing of {one!r}")
    chains = Chains(table, data.symbolizer)
    numbered: Counter[tuple[Key, int]] = Counter()
    for rows in table.batches():
        numbers = chains.numbers(rows)
        some_of = [values(column) for one in by if (column := rows.get(one)) is not None]
        keys = list(zip(*some_of, strict=True)) or [()] * len(rows)
        some = zip(keys, numbers, strict=True)
        numbered.update(some if span == (None, None) else compress(some, _within(rows, *span)))
    frames, functions = chains.frames()
    counts: Counter[tuple[Key, Frames]] = Counter()
    for (key, number), count in numbered.items():
        counts[key, frames[number]] += count
    return Stacks(table.kind.name, functions, counts)


def _within(rows: Rows, first: int | None, last: int | None) -> list[bool]:
    """Whether each was taken in that time."""
    time = rows.get("time")
    if time is None:
        return [True] * len(rows)
    moments = time.values.astype("i8")
    kept = np.ones(len(rows), bool)
    if first is not None:
        kept &= moments >= first
    if last is not None:
        kept &= moments <= last
    found: list[bool] = kept.tolist()
    return found


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
            "callchain" in table.names,
            table.kind.attr.shows_cpu_time,
            len(table),
            name,
        )
        for name, table in data.tables.items()
        if "pid" in table.names and {"callchain", "ip"} & set(table.names) and len(table)
    ]
    clocks = [one for one in able if one[1]] or able
    if not clocks:
        raise UsageError("no event of this file says where its samples were taken")
    return max(clocks)[3]
