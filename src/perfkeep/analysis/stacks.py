"""Call stacks of samples, and the weight of each: the sum of its samples' periods, or their number."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfkeep.abi.perf_event import Attr
from perfkeep.analysis import chains, frame_pointers
from perfkeep.analysis.symbolize import Function, Symbolizer
from perfkeep.errors import PerfkeepError, UsageError
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
        attr: of the event: in which unit periods are.
        functions: that frames are numbered by.
        weights: (values of the groups, frames from the outermost to the innermost) → weight.
        samples: the same keys → number of samples.
    """

    event: str
    attr: Attr
    functions: list[Function]
    weights: Counter[tuple[Key, Frames]]
    samples: Counter[tuple[Key, Frames]]

    @property
    def unit(self) -> str:
        """The unit of the weights: "samples", "ns" or what the event counts."""
        if self.weights == self.samples:
            return "samples"
        return "ns" if self.attr.is_clock else self.event

    def named(self) -> list[tuple[list[tuple[str, str]], int]]:
        """Each stack as (function, file), and its weight; the first group is the outermost frame."""
        return [
            ([(str(key[0]), ""), *(self.functions[frame] for frame in chain)], weight)
            for (key, chain), weight in self.weights.most_common()
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
        self._known: dict[tuple[int, int, bytes], int] = {}
        self._judged = frame_pointers.can_judge(table.kind.attr) and "comm" in table.names
        self._programs: Counter[tuple[str, int]] = Counter()
        #: Remarks on what is not as it looks, a sentence each; complete behind `frames`.
        self.remarks: list[str] = []

    def numbers(self, rows: Rows) -> list[int]:
        """Of these samples' chains."""
        words, lengths, spaces, modes = chains.recorded(self._symbolizer.mappings, rows)
        whole, known = words.tobytes(), self._known
        bounds = pairwise((8 * behind(lengths)).tolist())
        numbers = [
            known.setdefault((space, mode, whole[begin:end]), len(known))
            for space, mode, (begin, end) in zip(
                spaces.tolist(), modes.tolist(), bounds, strict=True
            )
        ]
        self._count(rows, numbers)
        return numbers

    def _count(self, rows: Rows, numbers: list[int]) -> None:
        """Count samples by the thread's name and the chain. A name is looked up once for each thread
        and chain of a batch: there are few, and many samples.
        """
        comm, tid = rows.get("comm"), rows.get("tid")
        if not self._judged or comm is None or tid is None:
            return
        pairs = (tid.values.astype("i8") << 32) + np.array(numbers, "i8")
        _, first, counts = np.unique(pairs, return_index=True, return_counts=True)
        for row, count in zip(first.tolist(), counts.tolist(), strict=True):
            (name,) = values(comm, slice(row, row + 1))
            self._programs[name, numbers[row]] += count

    def frames(self) -> tuple[list[Frames], list[Function]]:
        """Of each number the frames, from the outermost to the innermost, and the functions that these
        are numbered by; functions that were compiled into others are frames of their own.
        """
        spaces, addresses, counts = self._real_frames()
        lengths, codes, functions = self._symbolizer.frames(spaces, addresses)
        bounds = behind(lengths)[behind(counts)]
        inner = codes[::-1].tolist()
        count = len(inner)
        stacks = [
            tuple(inner[count - end : count - begin]) for begin, end in pairwise(bounds.tolist())
        ]
        self.remarks += self._symbolizer.remarks()
        return stacks, functions

    def _real_frames(self) -> chains.Frames:
        """The frames without those that cannot be any."""
        mappings = self._symbolizer.mappings
        found = chains.frames(mappings, self._call_chains())
        if not self._judged:
            return found
        real, files = frame_pointers.judge(mappings, found)
        if text := frame_pointers.sentence(self._programs, files):
            self.remarks.append(text)
        counts = np.diff(np.append(0, np.cumsum(real))[behind(found.lengths)])
        return chains.Frames(found.spaces[real], found.addresses[real], counts)

    def _call_chains(self) -> chains.CallChains:
        words = np.frombuffer(b"".join(words for _, _, words in self._known), "u8")
        return chains.CallChains(
            words,
            np.array([len(words) // 8 for _, _, words in self._known], "i8"),
            np.array([space for space, _, _ in self._known], "i8"),
            np.array([mode for _, mode, _ in self._known], "i8"),
        )


def periods(rows: Rows) -> Ints:
    """The number of events each of these samples stands for; 1 where the file does not say."""
    column = rows.get("period")
    return np.ones(len(rows), "u8") if column is None else column.values


class _Tally:
    """Adds up samples by any key, batch by batch."""

    def __init__(self) -> None:
        self._codes: dict[tuple[Key, int], int] = {}
        self._samples: Ints = np.zeros(0, "i8")
        self._weights: Ints = np.zeros(0)

    def add(self, keys: Iterable[tuple[Key, int]], weights: Ints, within: Ints) -> None:
        """
        Args:
            within: whether each of them counts.
        """
        known = self._codes
        codes = np.fromiter((known.setdefault(key, len(known)) for key in keys), "i8", len(weights))
        codes, room = codes[within], len(known)
        self._samples = np.bincount(codes, minlength=room) + _grown(self._samples, room)
        # As floats, which are exact up to 2**53: a file may say any period, and integers wrap.
        self._weights = np.bincount(codes, weights[within], room) + _grown(self._weights, room)

    def items(self) -> Iterator[tuple[tuple[Key, int], int, int]]:
        """(key, number of samples, weight) of each that has samples."""
        sums = zip(self._codes, self._samples.tolist(), self._weights.tolist(), strict=True)
        return ((key, samples, int(weight)) for key, samples, weight in sums if samples)


def _grown(numbers: Ints, size: int) -> Ints:
    return np.pad(numbers, (0, size - len(numbers)))


def stacks(
    data: Data,
    name: str,
    by: Sequence[str] = ("comm",),
    span: tuple[int | None, int | None] = (None, None),
    count_samples: bool = False,
) -> Stacks:
    """
    Args:
        by: some of GROUPS.
        span: only samples from the first to the last of these ns.
        count_samples: each sample has the weight 1, instead of its period.

    Raises:
        UsageError: there is no such table, or it says nothing of places, or not whose they are.
    """
    table = data.table(name)
    for group in by:
        if group not in GROUPS or group not in table.names:
            raise UsageError(f"{table.kind.name} says nothing of {group!r}")
    call_chains, tally = Chains(table, data.symbolizer), _Tally()
    for rows in table.batches():
        columns = [values(column) for group in by if (column := rows.get(group)) is not None]
        keys = list(zip(*columns, strict=True)) or [()] * len(rows)
        pairs = zip(keys, call_chains.numbers(rows), strict=True)
        weights = np.ones(len(rows)) if count_samples else periods(rows)
        tally.add(pairs, weights, _within(rows, *span))
    frames_of, functions = call_chains.frames()
    data.remark(call_chains.remarks)
    found = Stacks(table.kind.name, table.kind.attr, functions, Counter(), Counter())
    for (key, number), samples, weight in tally.items():
        found.samples[key, frames_of[number]] += samples
        found.weights[key, frames_of[number]] += weight
    return found


def _within(rows: Rows, first: int | None, last: int | None) -> Ints:
    """Whether each was taken in that time."""
    within, time = np.ones(len(rows), bool), rows.get("time")
    if time is None:
        return within
    moments = time.values.astype("i8")
    if first is not None:
        within &= moments >= first
    if last is not None:
        within &= moments <= last
    return within


class Share(NamedTuple):
    """The weight of what ran in something itself, and in all that it called.

    Attributes:
        values: what it is: comm, pid, tid, cpu; sym and dso of the function.
        samples: that were taken in it itself.
    """

    values: dict[str, str | int]
    self: int
    total: int
    samples: int


def shares(found: Stacks, by: Sequence[str], keys: Sequence[str] = ("comm",)) -> list[Share]:
    """The one with the greatest weight of its own first.

    Args:
        by: "sym", "dso", both or neither.
        keys: what `found` was put together by.
    """
    names = {"sym": 0, "dso": 1}
    parts = [tuple(one[names[name]] for name in by) for one in found.functions]
    own: Counter[tuple[Key, Key]] = Counter()
    total: Counter[tuple[Key, Key]] = Counter()
    samples: Counter[tuple[Key, Key]] = Counter()
    for (key, chain), weight in found.weights.items():
        leaf = key, parts[chain[-1]] if chain else ("",) * len(by)
        own[leaf] += weight
        samples[leaf] += found.samples[key, chain]
        for part in {parts[frame] for frame in chain} if by else {()}:
            total[key, part] += weight
    rows = [
        Share(
            dict(zip([*keys, *by], [*row[0], *row[1]], strict=True)),
            own[row],
            total[row],
            samples[row],
        )
        for row in total.keys() | own.keys()
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
        if not any(len(table) for table in data.tables.values()):
            raise PerfkeepError(errno.ENODATA, "there are no samples yet")
        raise UsageError("no event of these samples records where they were taken")
    return max(clocks)[3]
