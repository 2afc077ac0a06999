"""Moments as people type them, on the clock that recordings use."""

from __future__ import annotations

import re
import time
from datetime import datetime

from perfkeep.errors import UsageError
from perfkeep.units import parse_duration

_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?")

_SPAN = re.compile(r"-?[\d.]+(ns|us|µs|ms|s|m|min|h|d)")


def _realtime(text: str, now_ns: int) -> int:
    """ns since the epoch. Raises: ValueError: not a moment."""
    if text.startswith("@"):
        return int(float(text[1:]) * 10**9)
    if clock := _CLOCK.fullmatch(text):
        hours, minutes, seconds = clock.groups()
        today = datetime.fromtimestamp(now_ns / 10**9)
        midnight = today.replace(hour=int(hours), minute=int(minutes), second=0, microsecond=0)
        return int(midnight.timestamp()) * 10**9 + int(float(seconds or 0) * 10**9)
    return int(datetime.fromisoformat(text).timestamp() * 10**9)


def parse_moment(text: str) -> int:
    """CLOCK_MONOTONIC ns of "10s" or "-10s" (ago), "14:05", "14:05:01.5" (today),
    "2026-01-31T14:05:00Z" or "@1767225600" (seconds since the epoch).

    Raises:
        UsageError: none of these.
    """
    monotonic = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    now = time.time_ns()
    if _SPAN.fullmatch(text):
        return monotonic - parse_duration(text.removeprefix("-"))
    try:
        return monotonic + _realtime(text, now) - now
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"{text!r} is not a moment",
            hint="write it like 10s (ago), 14:05:01, 2026-01-31T14:05:00 or @SECONDS",
        ) from None
