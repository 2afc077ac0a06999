"""What a measurement gives, and how a set of them is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

#: The number of times each measurement is taken.
RUNS = 3


@dataclass(frozen=True)
class Budget:
    """A promise about one number of a figure.

    Attributes:
        words: the promise.
        value: the number that it is about, often the ratio to the peer.
        limit: what `value` may be at most, or at least where `least` is set.
    """

    words: str
    value: float
    limit: float
    least: bool = False

    @property
    def excess(self) -> float:
        """The distance of `value` beyond the limit; the largest of several runs is the worst."""
        return self.limit - self.value if self.least else self.value - self.limit


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        what: the quantity, with its unit.
        ours: perfkeep's value.
        peer: the program beside it, or "".
        theirs: the peer's value, or None.
        budget: None: a figure without a promise.
    """

    what: str
    ours: float
    peer: str
    theirs: float | None
    budget: Budget | None = None

    @property
    def holds(self) -> bool | None:
        """True if the promise is kept; None: there is none."""
        return None if self.budget is None else self.budget.excess <= 0

    def row(self) -> list[str]:
        verdict = {True: "holds", False: "**does not hold**", None: ""}[self.holds]
        theirs = "" if self.theirs is None else number(self.theirs)
        words = "" if self.budget is None else self.budget.words
        return [self.what, number(self.ours), self.peer, theirs, words, verdict]

    def as_json(self) -> dict[str, object]:
        words = None if self.budget is None else self.budget.words
        return asdict(self) | {"budget": words, "holds": self.holds}


def worst(runs: Sequence[Sequence[Figure]]) -> list[Figure]:
    """Pick each figure from the run that is worst for its budget; without one, the middle run.

    Args:
        runs: the same figures, in the same order, of each run.
    """
    return [_worst(figures) for figures in zip(*runs, strict=True)]


def _worst(figures: Sequence[Figure]) -> Figure:
    if any(figure.budget is None for figure in figures):
        return sorted(figures, key=lambda figure: figure.ours)[len(figures) // 2]
    return max(figures, key=lambda figure: figure.budget.excess if figure.budget else 0.0)


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
