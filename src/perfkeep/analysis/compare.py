"""Two sets of samples compared: what takes a larger share than before, and what a smaller one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from perfkeep.abi.perf_event import Type
from perfkeep.analysis.samples import choose
from perfkeep.analysis.stacks import Share, Stacks, shares
from perfkeep.errors import UsageError
from perfkeep.units import parse_duration

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data

#: (first, last) ns of the recording's clock; None: open.
Span = tuple[int | None, int | None]


class Change(NamedTuple):
    """The shares of something itself, and of all that it called, before and after.

    Attributes:
        values: what it is; see stacks.Share.
        before, after: in itself, 0 to 1.
        total_before, total_after: and in what it called.
    """

    values: dict[str, str | int]
    before: float
    after: float
    total_before: float
    total_after: float

    @property
    def change(self) -> float:
        return self.after - self.before


def compare(
    before: Stacks, after: Stacks, by: Sequence[str], keys: Sequence[str] = ("comm",)
) -> list[Change]:
    """The one that changed most first.

    Args:
        by, keys: see stacks.shares.
    """
    parts = []
    for found in (before, after):
        count = sum(found.weights.values()) or 1
        rows = {tuple(row.values.items()): row for row in shares(found, by, keys)}
        parts.append((count, rows))
    (old, olds), (new, news) = parts
    nothing = Share({}, 0, 0, 0)
    changes = []
    for values in olds.keys() | news.keys():
        one, other = olds.get(values, nothing), news.get(values, nothing)
        changes.append(
            Change(
                dict(values), one.self / old, other.self / new, one.total / old, other.total / new
            )
        )
    return sorted(
        changes,
        key=lambda one: (-abs(one.change), -one.total_after, *map(str, one.values.values())),
    )


def counterpart(event: str, before: Data, after: Data) -> str:
    """The table in `after` that holds the same event as one in `before`: names of tables depend on
    which other events a file has.

    Raises:
        UsageError: one of them has no such event, or several.
    """
    name = before.name_of(event)
    kind = before.tables[name].kind
    if name in after.tables and after.tables[name].kind.name == kind.name:
        return name
    same = [
        other for other, table in after.tables.items()
        if kind.attr.type != Type.TRACEPOINT and table.kind.attr.generic == kind.attr.generic
    ]  # fmt: skip
    # Names have modifiers (cpu-clock:ppp), and what is counted is the same.
    return same[0] if len(same) == 1 else after.name_of(kind.name)


def parse_span(text: str, data: Data, event: str) -> Span:
    """ "2s..5s" from the first sample of an event on, "-5s..-2s" from its last one back; either may
    be left away.

    Raises:
        UsageError: no span; or the samples have no time.
    """
    found = re.fullmatch(r"([^.]+(?:\.\d+\w+)?|)\.\.(.*)", text)
    if found is None or not any(found.groups()):
        raise UsageError(f"{text!r} is no span", hint="write it like 2s..5s, 10s.. or -5s..-2s")
    times = choose(data.table(event)).times
    if times is None:
        raise UsageError(f"{event} does not record when its samples were taken")
    if not len(times):
        return None, None
    first, last = int(times.min()), int(times.max())

    def moment(part: str) -> int | None:
        if not part:
            return None
        return last - parse_duration(part[1:]) if part[0] == "-" else first + parse_duration(part)

    return moment(found[1]), moment(found[2])
