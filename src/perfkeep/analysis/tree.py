"""Call trees: callers, what they called, and the weight of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from perfkeep.analysis.stacks import Key, Stacks


class Row(NamedTuple):
    """One function as it was called from one place.

    Attributes:
        parent: the row of its caller; -1: it has none.
        depth: 0 for what the samples were put together by, like the thread's name.
        own: the weight of the function itself; `total`: and of what it called from here.
        samples: that were taken in it and in what it called from here.
    """

    parent: int
    depth: int
    name: str
    file: str
    own: int
    total: int
    samples: int


@dataclass(slots=True)
class _Node:
    own: int = 0
    total: int = 0
    samples: int = 0
    called: dict[int, _Node] = field(default_factory=dict)


def tree(found: Stacks, least: float = 0.0) -> list[Row]:
    """Each caller before what it called, the one with the greatest weight first.

    Args:
        least: rows with a smaller share of the whole are left out, with what they called.
    """
    roots: dict[Key, _Node] = {}
    for (key, frames), weight in found.weights.items():
        node, samples = roots.setdefault(key, _Node()), found.samples[key, frames]
        node.total += weight
        node.samples += samples
        for frame in frames:
            node = node.called.setdefault(frame, _Node())
            node.total += weight
            node.samples += samples
        node.own += weight
    limit = least * sum(node.total for node in roots.values())
    rows: list[Row] = []
    # Not by recursion: call chains are up to a thousand frames deep.
    left = [(-1, 0, " ".join(map(str, key)), "", node) for key, node in roots.items()]
    left.sort(key=lambda one: one[-1].total)
    while left:
        parent, depth, name, file, node = left.pop()
        if node.total < limit:
            continue
        here = len(rows)
        rows.append(Row(parent, depth, name, file, node.own, node.total, node.samples))
        below = [(here, depth + 1, *found.functions[one], of) for one, of in node.called.items()]
        left += sorted(below, key=lambda one: one[-1].total)
    return rows
