"""Polling with a deadline."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

#: The `eventually` fixture.
Eventually = Callable[[Callable[[], object]], None]

#: Long enough for a machine whose CPUs are busy with many other things; no test passes by waiting.
DEADLINE_S = 60.0


def eventually(holds: Callable[[], object]) -> None:
    """Poll until the condition holds, or fail the test at the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"it did not come true within {DEADLINE_S:.0f} s"
        select.select([], [], [], 0.005)
