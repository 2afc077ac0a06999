"""What each key of a defined recording may be, besides `events`; see `definitions`.

A function for each: it takes what tomllib gives, and gives what a definition holds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

from perfkeep.client import limits, recording
from perfkeep.errors import KernelRefused
from perfkeep.kernel import cpus
from perfkeep.units import parse_duration, parse_size


class Wrong(Exception):
    """A value that makes no sense, in words; `hint` says what to write."""

    def __init__(self, text: str, *, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


def shown(value: Any) -> str:
    """A value in a sentence, and no more of it than fits there."""
    try:
        text = repr(value)
    except ValueError:  # Python does not print numbers of over 4300 digits
        text = "a very long number"
    return text if len(text) <= 60 else f"{text[:60]}…"


def string(value: Any, example: str) -> str:
    """Raises: Wrong: no string, or nothing in it."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise Wrong(f"{shown(value)} is not a string", hint=f'write it like "{example}"')
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Wrong(f"{shown(value)} is neither true nor false")
    return value


def _cpus(value: Any) -> tuple[int, ...]:
    return cpus.parse_list(string(value, "0-3,5"))


def _ring(value: Any) -> str:
    text = string(value, "8M")
    try:
        limits.check_ring(parse_size(text), 1)
    except KernelRefused:
        pass  # sizes are right or wrong everywhere; what there is room for is seen when it starts
    return text


def _cgroup(value: Any) -> str:
    return string(value, "/system.slice")


def _owner(value: Any) -> str | int:
    recording.access(owner=_name_or_number(value))
    return _name_or_number(value)


def _group(value: Any) -> str | int:
    recording.access(group=_name_or_number(value))
    return _name_or_number(value)


def _name_or_number(value: Any) -> str | int:
    # 2**32 - 1 is how chown(2) says: leave it as it is.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32 - 1:
        return value
    if not isinstance(value, str):
        raise Wrong(f"{shown(value)} is neither a name nor a number of one")
    return string(value, "root")


def _mode(value: Any) -> int:
    text = string(value, "0640")
    if not re.fullmatch("[0-7]{3,4}", text):
        raise Wrong(f"{text!r} is not three or four octal digits", hint="write it like 0640")
    mode = int(text, 8)
    recording.access(mode=mode)
    return mode


def _span(example: str, least_ns: int, most_ns: int, words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        text = string(value, example)
        if not least_ns <= parse_duration(text) <= most_ns:
            raise Wrong(f"{text!r} is not {words}")
        return text

    return read


def _directory(value: Any) -> str:
    text = string(value, "/var/lib/perfkeep/spill-NAME")
    if not os.path.isabs(text):
        raise Wrong(f"{text!r} is no absolute path", hint="write the whole path, from / on")
    return text


#: key → what reads it. Raises: Wrong, UsageError: the value makes no sense.
KEYS: dict[str, Callable[[Any], Any]] = {
    "cpus": _cpus,
    "cgroup": _cgroup,
    "ring": _ring,
    "call_graph": _truth,
    "owner": _owner,
    "group": _group,
    "mode": _mode,
    "ttl": _span("1h", 1, 2**62 - 1, "a time in which anything can be recorded"),
    "spill": _directory,
    "spill_every": _span("5s", 10**8, 86400 * 10**9, "between 100ms and 24h"),
    "sideband": _truth,
    "enable": _truth,
    "optional": _truth,
}
