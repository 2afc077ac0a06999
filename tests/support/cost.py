"""The cost of a call in units that do not depend on the machine or its load."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType


@dataclass(frozen=True)
class Cost:
    """
    Attributes:
        calls: function calls, of Python's and of C functions.
        peak_bytes: memory that Python's allocator had given out at most, above the start.
    """

    calls: int
    peak_bytes: int


def cost_of(function: Callable[[], object]) -> Cost:
    """Call a function twice, as each tracer slows the other, and return its cost."""
    return Cost(_calls(function), _peak_bytes(function))


def _calls(function: Callable[[], object]) -> int:
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
    return calls


def _peak_bytes(function: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
