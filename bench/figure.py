"""What a measurement gives, and how a set of them is printed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        what: the quantity, with its unit.
        ours: perfkeep's value.
        peer: who is beside it, or "".
        theirs: the peer's value, or None.
        budget: the promise, in words.
        holds: whether it is kept; None: a figure without a promise.
    """

    what: str
    ours: float
    peer: str
    theirs: float | None
    budget: str
    holds: bool | None

    def row(self) -> list[str]:
        verdict = {True: "holds", False: "**does not hold**", None: ""}[self.holds]
        theirs = "" if self.theirs is None else number(self.theirs)
        return [self.what, number(self.ours), self.peer, theirs, self.budget, verdict]


HEADER = ["what", "perfkeep", "beside it", "", "budget", ""]


def number(value: float) -> str:
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"


def table(figures: list[Figure]) -> str:
    """A Markdown table with aligned columns."""
    rows = [HEADER, *(figure.row() for figure in figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
