"""Persistent perf events on stock Linux kernels.

An event goes on counting and recording after the process that opened it has gone; it has an id
and a name, and any permitted process may reopen it, take a snapshot of what it recorded, and
end it.

    >>> import perfkeep
    >>> recording = perfkeep.start("flight", ["sched:sched_switch", "cpu-clock/freq=999/"])
    >>> recording.snapshot("last.data", last="1s").coverage.complete
    True
    >>> recording.claim()

Names are loaded when they are first used, so that importing perfkeep costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data
    from perfkeep.client.data_set import read
    from perfkeep.client.event import PerfEvent, open_event, reopen
    from perfkeep.client.recording import Recording, recordings, start
    from perfkeep.client.snapshot import Snapshot
    from perfkeep.errors import PerfkeepError

__version__ = "0.1.0"

__all__ = [
    "Data",
    "PerfEvent",
    "PerfkeepError",
    "Recording",
    "Snapshot",
    "open_event",
    "read",
    "recordings",
    "reopen",
    "start",
]

_WHERE = {
    "Data": "analysis.data",
    "PerfEvent": "client.event",
    "PerfkeepError": "errors",
    "Recording": "client.recording",
    "Snapshot": "client.snapshot",
    "open_event": "client.event",
    "read": "client.data_set",
    "recordings": "client.recording",
    "reopen": "client.event",
    "start": "client.recording",
}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'perfkeep' has no attribute {name!r}")
    import importlib

    from perfkeep.extras import needed

    with needed():
        value = getattr(importlib.import_module(f"perfkeep.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
