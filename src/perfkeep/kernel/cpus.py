"""CPU numbers, as the kernel writes them in sysfs: "0-3,5".

Reads /sys/devices/system/cpu; parses and prints lists of numbers; opens no events.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from functools import cache

from perfkeep.errors import UsageError

_SYSFS = "/sys/devices/system/cpu"


def parse_list(text: str) -> tuple[int, ...]:
    """What "0-3,5" means: (0, 1, 2, 3, 5), sorted and without repeats.

    Raises:
        UsageError: not a CPU list.
    """
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(
                f"{part!r} is not a CPU or a range of CPUs", hint="write a list like 0-3,5"
            )
        # Nobody has a CPU with a longer number, and int() gives up at 4300 digits.
        ends = (first, last or first)
        low, high = (int(number) if len(number) < 10 else 1 << 30 for number in ends)
        if high < low or high > 65535:
            raise UsageError(
                f"the CPU range {part!r} runs backwards or too far", hint="write it like 0-3"
            )
        numbers.update(range(low, high + 1))
    return tuple(sorted(numbers))


def format_list(numbers: Iterable[int]) -> str:
    """(0, 1, 2, 5) → "0-2,5"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def _read(name: str) -> tuple[int, ...]:
    with open(f"{_SYSFS}/{name}", "rb") as file:  # see kernel.sysctl
        text = file.read().decode().strip()
    return parse_list(text) if text else ()


def online() -> tuple[int, ...]:
    """The CPUs that run now."""
    return _read("online")


@cache
def possible() -> frozenset[int]:
    """The CPUs that this boot can ever have."""
    return frozenset(_read("possible"))


def check_online(wanted: Iterable[int]) -> tuple[int, ...]:
    """The CPUs asked for, if all of them can be recorded now.

    Raises:
        UsageError: ENODEV naming the CPUs that are offline or absent, and those that are not.
    """
    chosen, running = tuple(sorted(set(wanted))), online()
    absent = [cpu for cpu in chosen if cpu not in possible()]
    offline = [cpu for cpu in chosen if cpu not in running and cpu not in absent]
    if not chosen:
        raise UsageError("no CPU was named", hint="leave -C out for all of them")
    if absent or offline:
        words = [f"CPU {format_list(absent)} does not exist"] if absent else []
        words += [f"CPU {format_list(offline)} is offline"] if offline else []
        raise UsageError(
            f"{' and '.join(words)}; CPUs {format_list(running)} are online", errno.ENODEV
        )
    return chosen
