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
from dataclasses import dataclass, field
from importlib.resources import files

Frame = tuple[str, str]
Weighed = Iterable[tuple[list[Frame], int]]

#: Frames with a smaller share, before and after, are left out: they would be thinner than a pixel.
_LEAST = 0.001


@dataclass(slots=True)
class _Node:
    """A frame below one caller: how often it was seen, after and before."""

    counts: list[int] = field(default_factory=lambda: [0, 0])
    called: dict[Frame, _Node] = field(default_factory=dict)


def flamegraph(
    title: str, stacks: Weighed, before: Weighed | None = None, unit: str = "samples"
) -> bytes:
    """The page.

    Args:
        stacks: (function, file) from the outermost to the innermost, and how often that was seen.
        before: the same of what this is compared with: widths are those of `stacks`, and colours
            say whether a frame's share grew or shrank.
        unit: of the counts.
    """
    root = _Node()
    _add(root, stacks, 0)
    _add(root, before or (), 1)
    texts: dict[str, int] = {}
    nodes: list[int] = []
    left_out = _flatten(root, texts, nodes)
    return _page(
        {
            "title": title,
            "unit": unit,
            "before": None if before is None else root.counts[1],
            "least": _LEAST * 100,
            "left_out": left_out,
            "texts": list(texts),
            "nodes": nodes,
        }
    )


def _add(root: _Node, stacks: Weighed, side: int) -> None:
    for frames, count in stacks:
        node = root
        node.counts[side] += count
        for frame in frames:
            node = node.called.setdefault(frame, _Node())
            node.counts[side] += count


def _flatten(root: _Node, texts: dict[str, int], nodes: list[int]) -> int:
    """Depth, name, file, and both counts of each frame, callers before what they called and that by
    name; gives how many frames were left out.
    """
    least = [_LEAST * count for count in root.counts]
    left_out = 0
    todo: list[tuple[int, Frame, _Node]] = [(0, ("all", ""), root)]
    while todo:
        depth, (name, file), node = todo.pop()
        if depth and not any(
            count and count >= limit for count, limit in zip(node.counts, least, strict=True)
        ):
            left_out += 1
            # Those that it called count as well.
            todo += [(depth + 1, frame, one) for frame, one in node.called.items()]
            continue
        nodes += [
            depth,
            texts.setdefault(name, len(texts)),
            texts.setdefault(file, len(texts)),
            *node.counts,
        ]
        todo += [
            (depth + 1, frame, one) for frame, one in sorted(node.called.items(), reverse=True)
        ]
    return left_out


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
