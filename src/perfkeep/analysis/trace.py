"""A file as a Perfetto trace: what of it becomes which kind of packet."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, TypeVar

from perfkeep.abi.perf_event import Flag, Type
from perfkeep.abi.records import Record
from perfkeep.analysis.sampled import facts, listed, sampled
from perfkeep.errors import PerfkeepError, UsageError
from perfkeep.formats import perfetto
from perfkeep.formats.perfetto import Instant, Switch, Thread, Wakeup
from perfkeep.records.cells import values

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data
    from perfkeep.records.columns import Rows, Table

T = TypeVar("T")

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
        PerfkeepError: ENODATA: there are no samples.
        UsageError: there is no such table, or none says when its samples were taken.
    """
    names = data.matching(event) if event else list(data.tables)
    named = {name: data.tables[name] for name in names}
    named = {name: one for name, one in named.items() if "time" in one.names and len(one)}
    tables = list(named.values())
    if not tables:
        if not any(len(data.tables[name]) for name in names):
            raise PerfkeepError(errno.ENODATA, "there are no samples yet")
        raise UsageError("no event of these samples records when they were taken")
    threads, first = _threads(data, tables)
    wall = None if data.wall_offset_ns is None else first + data.wall_offset_ns
    yield from perfetto.head(facts(data), threads, (first, wall))
    instants, sequence = perfetto.Instants(), 1
    for table_name, table in named.items():
        system, _, name = table.kind.tracepoint.partition(":")
        columns = set(table.names)
        scheduler = system == "sched"
        # Of some tasks only, nothing says what ran between them.
        of_all = not table.kind.attr.flags & Flag.CONTEXT_SWITCH
        if scheduler and name == "sched_switch" and columns >= _SWITCH | {"cpu"} and of_all:
            yield from perfetto.ftrace(_each(table, _switches))
        elif scheduler and name in perfetto.WAKEUPS and columns >= _WAKEUP | {"cpu"}:
            yield from perfetto.ftrace(_each(table, partial(_wakeups, name)))
        elif (
            table.kind.attr.type != Type.TRACEPOINT
            and columns & {"callchain", "ip"}
            and ("pid" in columns)
        ):
            sequence += 1
            yield from perfetto.samples(sampled(data, table_name), sequence)
        else:
            yield from instants.write(_each(table, partial(_instants, table.kind.name)))


def _threads(data: Data, tables: list[Table]) -> tuple[list[Thread], int]:
    """With the last name of each; and when the first sample was taken."""
    found: dict[int, Thread] = {}
    for kind, record in data.others():
        if kind == Record.COMM and len(record) > 16:
            pid, tid = _PAIR.unpack_from(record, 8)
            name = bytes(record[16:]).split(b"\0")[0].decode(errors="replace")
            found[tid] = Thread(tid, pid, name)
    firsts = []
    for rows in chain.from_iterable(table.batches() for table in tables):
        some = zip(
            listed(rows, "tid", 0),
            listed(rows, "pid", 0),
            listed(rows, "comm", ""),
            strict=True,
        )
        found |= {tid: Thread(tid, pid, comm) for tid, pid, comm in dict.fromkeys(some)}
        firsts += [min(listed(rows, "time", 0))] if len(rows) else []
    return [one for tid, one in sorted(found.items()) if tid > 0 and one.pid >= 0], min(firsts)


def _each(table: Table, make: Callable[[Rows], Iterator[T]]) -> Iterator[T]:
    return chain.from_iterable(map(make, table.batches()))


def _switches(rows: Rows) -> Iterator[Switch]:
    wanted = (
        ("time", 0), ("cpu", 0), ("prev_comm", ""), ("prev_pid", 0), ("prev_prio", 0),
        ("prev_state", 0), ("next_comm", ""), ("next_pid", 0), ("next_prio", 0),
    )  # fmt: skip
    return map(Switch, *(listed(rows, *one) for one in wanted))


def _wakeups(name: str, rows: Rows) -> Iterator[Wakeup]:
    wanted = (
        ("time", 0), ("cpu", 0), ("tid", 0), ("event_comm", ""), ("event_pid", 0), ("prio", 0),
        ("target_cpu", 0),
    )  # fmt: skip
    return map(Wakeup, repeat(name), *(listed(rows, *one) for one in wanted))


def _instants(event: str, rows: Rows) -> Iterator[Instant]:
    fields = [
        one
        for one in rows.columns
        if one.name not in _CONTEXT and not one.name.startswith("common_")
    ]
    names = [one.name.removeprefix("event_") for one in fields]
    known = [listed(rows, name, 0) for name in ("time", "cpu", "pid", "tid")]
    some = zip(*map(values, fields), strict=True) if fields else [()] * len(rows)
    for time, cpu, pid, tid, row in zip(*known, some, strict=True):
        # 0: nobody, or the record was made by a thread that had ended already.
        who = max(pid, 0), max(tid, 0)
        yield Instant(time, cpu, *who, event, dict(zip(names, row, strict=True)))
