"""Call trees: who called what, and how often it was seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from perfkeep.analysis.stacks import Stacks


class Row(NamedTuple):
    """One function as it was called from one place.

    Attributes:
        parent: the row of its caller; -1: it has none.
        depth: 0 for what the samples were put together by, like the thread's name.
        own: samples that were taken in itself; `total`: and in what it called from here.
    """

    parent: int
    depth: int
    name: str
    file: str
    own: int
    total: int


@dataclass(slots=True)
class _Node:
    own: int = 0
    total: int = 0
    called: dict[int, _Node] = field(default_factory=dict)


def tree(found: Stacks, least: float = 0.0) -> list[Row]:
    """Each caller before what it called, the most frequent first.

    Args:
        least: rows with a smaller share of all samples are left out, with what they called.
    """
    roots: dict[str, _Node] = {}
    for (key, frames), count in found.counts.items():
        node = roots.setdefault(" ".join(map(str, key)), _Node())
        node.total += count
        for one in frames:
            node = node.called.setdefault(one, _Node())
            node.total += count
        node.own += count
    limit = least * sum(node.total for node in roots.values())
    rows: list[Row] = []
    # Not by recursion: call chains are up to a thousand frames deep.
    left = [(-1, 0, name, "", node) for name, node in roots.items()]
    left.sort(key=lambda one: one[-1].total)
    while left:
        parent, depth, name, file, node = left.pop()
        if node.total < limit:
            continue
        here = len(rows)
        rows.append(Row(parent, depth, name, file, node.own, node.total))
        below = [(here, depth + 1, *found.functions[one], of) for one, of in node.called.items()]
        left += sorted(below, key=lambda one: one[-1].total)
    return rows
