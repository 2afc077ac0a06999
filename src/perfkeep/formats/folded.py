"""Folded stacks: `comm;outermost;…;innermost weight`, a line each, as flamegraph.pl reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def folded(stacks: Iterable[tuple[list[str], int]]) -> Iterator[str]:
    """Lines, sorted. What would be taken for a separator becomes "_".

    Args:
        stacks: names from the outermost to the innermost, and the weight of that.
    """
    lines: dict[str, int] = {}
    for names, weight in stacks:
        text = ";".join(_plain(name) for name in names)
        lines[text] = lines.get(text, 0) + weight
    for text in sorted(lines):
        yield f"{text} {lines[text]}\n"


def _plain(name: str) -> str:
    return "".join("_" if one in ";\n\r" else one for one in name) or "_"
