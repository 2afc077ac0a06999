"""A flame graph as one page that needs nothing else: no network, no other file.

The page is flamegraph.html; what it shows stands in it as JSON. It runs only its own script, whose
hash it names, so that nothing which a frame is called can run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from importlib.resources import files

Frame = tuple[str, str]
#: Depth, frame, and its weight, after and before.
_Node = tuple[int, Frame, int, int]
Weighed = Iterable[tuple[list[Frame], int]]

#: Frames with a smaller share, before and after, are left out: they would be thinner than a pixel.
_LEAST = 0.001


def flamegraph(
    title: str, stacks: Weighed, before: Weighed | None = None, unit: str = "samples"
) -> bytes:
    """The page.

    Args:
        stacks: (function, file) from the outermost to the innermost, and the weight of that.
        before: the same of what this is compared with: widths are those of `stacks`, and colours
            say whether a frame's share grew or shrank.
        unit: of the weights.
    """
    weighed = [(tuple(frames), count, 0) for frames, count in stacks]
    weighed += [(tuple(frames), count, 1) for frames, count in before or ()]
    totals = [sum(count for _, count, one in weighed if one == side) for side in (0, 1)]
    nodes, left_out = _tree(weighed, totals)
    texts: dict[str, int] = {}
    flat: list[int] = []
    for depth, (name, file), *counts in nodes:
        numbers = (texts.setdefault(one, len(texts)) for one in (name, file))
        flat += [depth, *numbers, *counts]
    return _page(
        {
            "title": title,
            "unit": unit,
            "before": None if before is None else totals[1],
            "least": _LEAST * 100,
            "left_out": left_out,
            "texts": list(texts),
            "nodes": flat,
        }
    )


def _tree(
    weighed: list[tuple[tuple[Frame, ...], int, int]], totals: list[int]
) -> tuple[list[_Node], int]:
    """The frames that are thick enough, callers before what they called and that by name, and how
    many were left out. Never more of them are held than will be shown, and one stack's.
    """
    nodes: list[_Node] = [(0, ("all", ""), totals[0], totals[1])]
    path: tuple[Frame, ...] = ()
    # Of each frame of the path: its place among the nodes, and its counts so far.
    places: list[int] = []
    counts: list[list[int]] = []
    left_out = 0

    def close(depth: int) -> int:
        """The frames of the path below this depth; gives how many are too thin."""
        thin = 0
        while len(places) > depth:
            at, (after, then) = places.pop(), counts.pop()
            if counts:
                counts[-1][0] += after
                counts[-1][1] += then
            if (after and after >= _LEAST * totals[0]) or (then and then >= _LEAST * totals[1]):
                nodes[at] = (len(places) + 1, path[len(places)], after, then)
            else:  # and so is what it called, which lies behind it
                del nodes[at:]
                thin += 1
        return thin

    for frames, count, side in sorted(weighed, key=lambda one: one[0]):
        same = 0
        while same < min(len(path), len(frames)) and path[same] == frames[same]:
            same += 1
        left_out += close(same)
        path = frames
        for frame in frames[same:]:
            places.append(len(nodes))
            counts.append([0, 0])
            nodes.append((len(places), frame, 0, 0))
        if counts:
            counts[-1][side] += count
    left_out += close(0)
    return nodes, left_out


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _page(data: dict[str, object]) -> bytes:
    page = (files("perfkeep.formats") / "flamegraph.html").read_text(encoding="utf-8")
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}"
    # In JSON, "<" stands in strings only. ASCII: a lone surrogate stays what it is.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return page.replace("@POLICY@", policy).replace("@DATA@", text).encode()
