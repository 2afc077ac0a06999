"""Words of stock perf's event parser, which a name in sysfs takes away from it.

Until 6.4, perf collects the names of all PMUs' events and takes such a word for an event of a PMU
wherever it stands: with an event named `sched` nobody can name sched:sched_switch any more. What
this machine has beside that (tracepoints, PMUs) is looked up each time, as modules come and go.
"""

from __future__ import annotations

import os
import re

_TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_DEVICES = "/sys/bus/event_source/devices"

#: tools/perf/util/parse-events.l of Linux 3.18 to 6.12, without words with "-", which no entry has.
_WORDS = (
    # hardware and software events, and those of perf itself
    "cycles instructions branches faults cs migrations dummy duration_time user_time system_time "
    # cache events: of what, which operation, with what result
    "l1d l1i llc l2 dtlb itlb branch branches bpu btb bpc node load loads read store stores write "
    "prefetch prefetches refs reference ops access misses miss "
    # terms between the slashes, and what may stand in place of an event
    "config config1 config2 config3 name event period freq branch_type time nr inherit overwrite "
    "percore raw cpu mem hardware software breakpoint tracepoint metrics default "
    # ours
    "id lenient persistent"
)
_TOKENS = frozenset(_WORDS.split())
#: A raw event, r1a8; modifiers.
_PATTERN = re.compile(r"r[0-9a-f]+|[ukhpsdiweb]+", re.IGNORECASE)


def is_word(name: str) -> bool:
    """True if perf would read `name` differently before an event of that name was in sysfs."""
    return (
        name.lower() in _TOKENS
        or _PATTERN.fullmatch(name) is not None
        or _is_tracepoint(name)
        or _is_of_pmu(name)
    )


def _is_tracepoint(name: str) -> bool:
    """True for the name of a tracepoint, or of a system of them."""
    for place in _TRACEFS:
        systems = _names(f"{place}/events")
        if systems:
            return name in systems or any(
                os.path.exists(f"{place}/events/{system}/{name}/id") for system in systems
            )
    return False


def _is_of_pmu(name: str) -> bool:
    """True for the name of a PMU, or of an event of one."""
    pmus = _names(_DEVICES)
    return name in pmus or any(
        os.path.exists(f"{_DEVICES}/{pmu}/events/{name}") for pmu in pmus if pmu != "persistent"
    )


def _names(folder: str) -> list[str]:
    """The entries of a folder; none if the caller cannot see it, and then its perf cannot either."""
    try:
        return os.listdir(folder)
    except OSError:
        return []
