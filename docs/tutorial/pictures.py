"""Draws what a snapshot of the service holds: who waited when, and what one thread was doing.

python pictures.py stall.data DIRECTORY
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from html import escape
from pathlib import Path

import perfkeep
from perfkeep.analysis.stacks import Frames, Key, Stacks, stacks
from perfkeep.analysis.tree import Row, tree

WIDTH = 960
_STYLE = "font-family: sans-serif; font-size: 12px"


def page(height: float, parts: Iterable[str]) -> str:
    """An SVG."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'style="{_STYLE}; background: white">{"".join(parts)}</svg>\n'
    )


def box(x: float, y: float, width: float, height: float, colour: str, text: str = "") -> str:
    """A rectangle that says something when the mouse is over it."""
    shape = f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height}" '
    return f'{shape}fill="{colour}"><title>{escape(text)}</title></rect>'


def label(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def timeline(data: perfkeep.Data, around_ms: int = 80) -> str:
    """Threads of the service around the first long wait that the janitor ended: red is asleep, orange
    has no CPU.
    """
    ((tid, begin, length),) = data.sql(
        "SELECT o.tid, o.start, o.duration_ns FROM off_cpu o JOIN sched_waking w ON w.event_pid = o.tid "
        "AND w.time BETWEEN o.start AND o.start + o.duration_ns "
        "WHERE o.comm = 'worker' AND w.comm = 'janitor' AND o.duration_ns > 50000000 "
        "ORDER BY o.start LIMIT 1"
    ).fetchall()
    first, last = begin - around_ms * 10**6, begin + length + around_ms * 10**6
    rows = data.sql(
        "SELECT tid, comm, start, duration_ns, why FROM off_cpu "
        f"WHERE comm IN ('worker', 'janitor') AND start < {last} "
        f"AND start + duration_ns > {first} ORDER BY comm, tid, start"
    ).fetchall()
    lanes = {one: at for at, one in enumerate(dict.fromkeys((row[0], row[1]) for row in rows))}
    scale = (WIDTH - 140) / (last - first)
    parts = []
    for (number, comm), at in lanes.items():
        parts.append(label(8, 36 + at * 28, f"{comm} {number}"))
        parts.append(box(130, 22 + at * 28, WIDTH - 140, 20, "#6ca56c", f"{comm} runs"))
    for number, comm, start, duration, why in rows:
        low, high = max(start, first), min(start + duration, last)
        colour = "#d9a441" if why == "preempted" else "#d66"
        parts.append(
            box(
                130 + (low - first) * scale, 22 + lanes[number, comm] * 28, (high - low) * scale,
                20, colour, f"{comm} {number}: {why} for {duration / 1e6:.1f} ms",
            )
        )  # fmt: skip
    parts.append(label(130, 14, f"{(last - first) / 1e6:.0f} ms; thread {tid} waits first"))
    return page(30 + len(lanes) * 28, parts)


def of_thread(found: Stacks, comm: str) -> Stacks:
    def only(stacks: Counter[tuple[Key, Frames]]) -> Counter[tuple[Key, Frames]]:
        return Counter({stack: n for stack, n in stacks.items() if stack[0] == (comm,)})

    return found._replace(weights=only(found.weights), samples=only(found.samples))


def flames(data: perfkeep.Data, comm: str = "janitor") -> str:
    """What the threads of this name were doing while they had a CPU."""
    rows = tree(of_thread(stacks(data, "cpu_clock"), comm), least=0.01)
    if not rows:
        return page(20, [label(8, 14, f"{comm} was never seen on a CPU")])
    scale, depth = (WIDTH - 20) / rows[0].total, max(row.depth for row in rows)
    starts: list[float] = []
    taken: dict[int, float] = {}
    parts = []
    for at, row in enumerate(rows):
        x = 10.0 if row.parent < 0 else starts[row.parent] + taken.get(row.parent, 0.0)
        taken[row.parent] = taken.get(row.parent, 0.0) + row.total * scale
        starts.append(x)
        y = 8 + (depth - row.depth) * 19
        parts.append(box(x, y, row.total * scale - 0.5, 18, _warm(row, at), _told(row, rows)))
        if row.total * scale > 7 * 4:
            room = int(row.total * scale / 7)
            parts.append(label(x + 3, y + 13, row.name[:room]))
    return page(16 + (depth + 1) * 19, parts)


def _warm(row: Row, at: int) -> str:
    return f"hsl({20 + at * 37 % 30}, 80%, {65 + at * 11 % 12}%)" if row.depth else "#ccc"


def _told(row: Row, rows: list[Row]) -> str:
    return f"{row.name}: {row.total} of {rows[0].total} samples"


def main() -> None:
    source, directory = sys.argv[1], Path(sys.argv[2])
    data = perfkeep.read(source)
    (directory / "timeline.svg").write_text(timeline(data))
    (directory / "flames.svg").write_text(flames(data))


if __name__ == "__main__":
    main()
