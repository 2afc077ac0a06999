"""The times at which threads were switched in, where the kernel wrote that beside samples of sched_switch.

A sample of sched:sched_switch is taken in the thread that is switched out. An event of some tasks
only therefore has no sample of their being switched in; PERF_RECORD_SWITCH says when that was.
"""

from __future__ import annotations

import struct
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from perfkeep.abi.perf_event import Flag
from perfkeep.abi.records import MISC_SWITCH_OUT, Record
from perfkeep.formats.arrow import ArrowTable
from perfkeep.records.cells import Column
from perfkeep.records.writers import Writers

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data

#: The table of them in SQL.
SWITCHES = "switched_in"
_COLUMNS = {"prev_pid", "prev_comm", "prev_state", "time"}
_HEADER = struct.Struct("=IHH")


def followed_switches(data: Data) -> str | None:
    """Name of the table of sched_switch whose event has context-switch records beside it."""
    for name, table in data.tables.items():
        if table.kind.tracepoint != "sched:sched_switch" or not set(table.names) >= _COLUMNS:
            continue
        if table.kind.attr.flags & Flag.CONTEXT_SWITCH:
            return name
    return None


class Switches:
    """Threads and times of these records, as rows; read when they are first asked for."""

    def __init__(self, data: Data, name: str) -> None:
        self._data = data
        self._name = name

    @cached_property
    def _table(self) -> ArrowTable:
        events = self._data.file.events
        writers = Writers((event.attr, event.all_ids) for event in events)
        attr = self._data.tables[self._name].kind.attr
        rows = []
        for kind, record in self._data.others():
            if kind not in (Record.SWITCH, Record.SWITCH_CPU_WIDE):
                continue
            writer = writers.of(record)
            if writer is None or events[writer].attr != attr:
                continue
            layout = writers.layouts[writer]
            tid, time = layout.thread(record), layout.time(record)
            if not _HEADER.unpack_from(record)[1] & MISC_SWITCH_OUT and tid and time is not None:
                rows.append((tid, time))
        tids, times = np.array(rows, "i8").reshape(-1, 2).T
        return ArrowTable.of(
            [
                Column("tid", "int", np.ascontiguousarray(tids)),
                Column("time", "int", np.ascontiguousarray(times)),
            ]
        )

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)
