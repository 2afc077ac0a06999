"""A file as a Perfetto trace: what of it becomes which kind of packet."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from perfkeep.abi.perf_event import Type
from perfkeep.abi.records import Record
from perfkeep.analysis.sampled import facts, numbers, sampled, texts
from perfkeep.errors import UsageError
from perfkeep.formats import perfetto
from perfkeep.formats.perfetto import Instant, Switch, Thread, Value, Wakeup

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data
    from perfkeep.records.cells import Column
    from perfkeep.records.columns import Table

_PAIR = struct.Struct("=II")
#: Columns that are no fields of an instant: its track and its time say them, or nobody can use them.
_CONTEXT = {
    "host",
    "time", "cpu", "pid", "tid", "comm", "wall", "misc", "id", "stream_id", "callchain", "ip",
    "period", "raw", "user_stack", "user_regs", "user_abi", "intr_regs", "intr_abi", "aux",
}  # fmt: skip
_SWITCH = {"prev_comm", "prev_pid", "prev_prio", "prev_state", "next_comm", "next_pid", "next_prio"}
_WAKEUP = {"event_comm", "event_pid", "prio", "target_cpu"}


def trace(data: Data, event: str | None = None) -> Iterator[bytes]:
    """The trace, piece by piece.

    Args:
        event: only this one's samples; None: all.

    Raises:
        UsageError: there is no such table, or none says when its samples were taken.
    """
    tables = [data.table(event)] if event else list(data.tables.values())
    tables = [one for one in tables if one.get("time") is not None and len(one)]
    if not tables:
        raise UsageError("no event of this file says when its samples were taken")
    first = min(min(numbers(one, "time")) for one in tables)
    wall = None if data.wall_offset_ns is None else first + data.wall_offset_ns
    yield from perfetto.head(facts(data), _threads(data, tables), (first, wall))
    instants, sequence = perfetto.Instants(), 1
    for table in tables:
        name = table.kind.name.rpartition(":")[2]
        columns = {one.name for one in table.columns}
        if name == "sched_switch" and columns >= _SWITCH | {"cpu"}:
            yield from perfetto.ftrace(_switches(table))
        elif name in perfetto.WAKEUPS and columns >= _WAKEUP | {"cpu"}:
            yield from perfetto.ftrace(_wakeups(table, name))
        elif (
            table.kind.attr.type != Type.TRACEPOINT
            and columns & {"callchain", "ip"}
            and ("pid" in columns)
        ):
            sequence += 1
            yield from perfetto.samples(sampled(data, table.kind.name), sequence)
        else:
            yield from instants.write(_instants(table))


def _threads(data: Data, tables: list[Table]) -> list[Thread]:
    """With the last name of each."""
    found: dict[int, Thread] = {}
    for kind, record in data.others():
        if kind == Record.COMM and len(record) > 16:
            pid, tid = _PAIR.unpack_from(record, 8)
            name = bytes(record[16:]).split(b"\0")[0].decode(errors="replace")
            found[tid] = Thread(tid, pid, name)
    for table in tables:
        rows = zip(numbers(table, "tid"), numbers(table, "pid"), texts(table, "comm"), strict=True)
        found |= {tid: Thread(tid, pid, comm) for tid, pid, comm in dict.fromkeys(rows)}
    return [one for tid, one in sorted(found.items()) if tid > 0 and one.pid >= 0]


def _switches(table: Table) -> Iterator[Switch]:
    columns = (
        numbers(table, "time"), numbers(table, "cpu"),
        texts(table, "prev_comm"), numbers(table, "prev_pid"), numbers(table, "prev_prio"),
        numbers(table, "prev_state"), texts(table, "next_comm"), numbers(table, "next_pid"),
        numbers(table, "next_prio"),
    )  # fmt: skip
    return map(Switch, *columns)


def _wakeups(table: Table, name: str) -> Iterator[Wakeup]:
    columns = (
        [name] * len(table), numbers(table, "time"), numbers(table, "cpu"), numbers(table, "tid"),
        texts(table, "event_comm"), numbers(table, "event_pid"), numbers(table, "prio"),
        numbers(table, "target_cpu"),
    )  # fmt: skip
    return map(Wakeup, *columns)


def _instants(table: Table) -> Iterator[Instant]:
    fields = [
        one
        for one in table.columns
        if one.name not in _CONTEXT and not one.name.startswith("common_")
    ]
    names = [one.name.removeprefix("event_") for one in fields]
    times, cpus = numbers(table, "time"), numbers(table, "cpu")
    pids, tids = numbers(table, "pid"), numbers(table, "tid")
    values = zip(*map(_values, fields), strict=True) if fields else [()] * len(table)
    event = table.kind.name
    for time, cpu, pid, tid, row in zip(times, cpus, pids, tids, values, strict=True):
        # 0: nobody, or the record was made by a thread that had ended already.
        known = max(pid, 0), max(tid, 0)
        yield Instant(time, cpu, *known, event, dict(zip(names, row, strict=True)))


def _values(column: Column) -> list[Value]:
    """Row by row."""
    if column.offsets is None:
        return list(column.values.tolist())
    bounds = column.offsets.tolist()
    if column.form == "ints":
        flat = column.values.tolist()
        return [flat[at:end] for at, end in pairwise(bounds)]
    whole = column.values.tobytes()
    if column.form == "bytes":
        return [whole[at:end] for at, end in pairwise(bounds)]
    return [whole[at:end].decode(errors="replace") for at, end in pairwise(bounds)]
