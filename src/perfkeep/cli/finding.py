"""What `perfkeep doctor` finds, one thing at a time."""

from __future__ import annotations

from typing import Literal, NamedTuple

Verdict = Literal["ok", "warn", "fail"]


class Finding(NamedTuple):
    """One line: how it stands, what was looked at, what was found, and what would cure it.

    Attributes:
        cure: one command or one sentence; the one that changes least where there are several.
        others: further cures, from the one that changes least to the one that changes most.
    """

    verdict: Verdict
    what: str
    found: str
    cure: str = ""
    others: tuple[str, ...] = ()


def read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()
