"""Views over the tables of a file, in DuckDB's SQL, for the questions that are asked most. Pure.

Each view says what the recording must contain. Where it does not, the view answers with that
sentence, and with no row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from perfkeep.analysis.switches import SWITCHES, followed_switches

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data

#: Columns of each view, for those that answer with a reason.
_COLUMNS = {
    "off_cpu": "tid BIGINT, comm VARCHAR, start BIGINT, duration_ns BIGINT, state BIGINT, why VARCHAR",
    "run_queue": "tid BIGINT, comm VARCHAR, start BIGINT, duration_ns BIGINT, cpu BIGINT",
    "syscalls": "name VARCHAR, tid BIGINT, comm VARCHAR, start BIGINT, duration_ns BIGINT, ret BIGINT",
    "flames": (
        "id BIGINT, parent BIGINT, depth BIGINT, name VARCHAR, file VARCHAR, self BIGINT, "
        "total BIGINT, samples BIGINT"
    ),
}

# Of each thread: when it was switched out, when in again, and what for it was out.
_OFF_CPU = """
CREATE VIEW off_cpu AS
SELECT tid, comm, start, duration_ns, state,
       CASE WHEN state = 0 OR state = 256 THEN 'preempted' WHEN state & 1 = 1 THEN 'sleeping'
            WHEN state & 2 = 2 THEN 'uninterruptible' ELSE 'other' END AS why
FROM (
  SELECT tid, comm, time AS start, out, state,
         lead(time) OVER w - time AS duration_ns, lead(out) OVER w AS next_out
  FROM (
    SELECT prev_pid AS tid, prev_comm AS comm, time, true AS out, prev_state AS state
      FROM {switches} WHERE prev_pid != 0
    UNION ALL
    {switched_in})
  WINDOW w AS (PARTITION BY tid ORDER BY time, out DESC))
WHERE out AND NOT next_out {checked}
"""
_SWITCHED_IN = "SELECT next_pid, next_comm, time, false, 0 FROM {switches} WHERE next_pid != 0"
# What the kernel writes beside the samples of some tasks.
_FOLLOWED_IN = f"SELECT tid, '', time, false, 0 FROM {SWITCHES}"

# From the wake-up, or from being preempted, until it runs.
_RUN_QUEUE = """
CREATE VIEW run_queue AS
SELECT tid, comm, start, duration_ns, cpu
FROM (
  SELECT tid, comm, time AS start, ready,
         lead(time) OVER w - time AS duration_ns, lead(ready) OVER w AS next_ready,
         lead(cpu) OVER w AS cpu
  FROM (
    {wakeups}
    SELECT prev_pid AS tid, prev_comm AS comm, time, cpu, true AS ready
      FROM {switches} WHERE prev_pid != 0 AND prev_state IN (0, 256)
    UNION ALL
    SELECT next_pid, next_comm, time, cpu, false FROM {switches} WHERE next_pid != 0)
  WINDOW w AS (PARTITION BY tid ORDER BY time, ready DESC))
WHERE ready AND NOT next_ready {checked}
"""
_WAKEUP = """
    SELECT event_pid AS tid, event_comm AS comm, time, cpu, true AS ready FROM "{table}"
    UNION ALL"""

# Whether the switches of a CPU follow one another: the task that is switched in is the one that is
# switched out next. Of some tasks, or behind a filter, they do not. Idle tasks are looked at by
# themselves, as a CPU that was offline has no samples of its own (Linux 6.18).
_CHECKED = """
AND (SELECT CASE WHEN coalesce(avg((following = next_pid)::INT) FILTER (WHERE next_pid != 0), 1) < 0.9
                   OR count(*) FILTER (WHERE next_pid = 0) > 0 AND NOT bool_or(from_idle)
                 THEN error('{reason}') ELSE true END
     FROM (SELECT next_pid, lead(prev_pid) OVER (PARTITION BY cpu ORDER BY time) AS following,
                  bool_or(prev_pid = 0) OVER () AS from_idle FROM {switches})
     WHERE following IS NOT NULL)
"""
_OF_SOME = (
    "needs every sample of sched:sched_switch: those of a process, of a cgroup or behind a filter do "
    "not say when a thread was switched in"
)

# Of each call the exit that follows it in the same thread.
_SYSCALL = """
SELECT '{name}' AS name, tid, comm, start, duration_ns, ret
FROM (
  SELECT tid, comm, time AS start, entered, lead(entered) OVER w AS next_entered,
         lead(time) OVER w - time AS duration_ns, lead(ret) OVER w AS ret
  FROM (
    SELECT tid, comm, time, true AS entered, NULL::BIGINT AS ret FROM "{enter}"
    UNION ALL
    SELECT tid, comm, time, false, ret FROM "{exit}")
  WINDOW w AS (PARTITION BY tid ORDER BY time, entered DESC))
WHERE entered AND NOT next_entered
"""


_SWITCH = {"prev_pid", "prev_comm", "prev_state", "next_pid", "next_comm", "time", "cpu", "tid"}
_WOKEN = {"event_pid", "event_comm", "time", "cpu"}
_ENTER, _EXIT = {"tid", "comm", "time"}, {"tid", "comm", "time", "ret"}


class _Tracepoints:
    """The tables of tracepoints by what the events are, not by how the tables are called."""

    def __init__(self, data: Data) -> None:
        self._names: dict[str, str] = {}
        self._tables = data.tables
        # Of several of one tracepoint, with different filters, the one with most samples.
        for name, table in sorted(data.tables.items(), key=lambda item: len(item[1].found)):
            if table.kind.tracepoint:
                self._names[table.kind.tracepoint] = name

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def get(self, event: str, columns: set[str]) -> str | None:
        """Name of the table of this tracepoint, if it has these columns."""
        name = self._names.get(event)
        return name if name is not None and columns <= set(self._tables[name].names) else None


def refused(view: str, reason: str) -> list[str]:
    """Statements for a view that answers every query with the reason why it cannot."""
    reason = f"{view}: {reason}".replace("'", "''")
    columns = ", ".join(
        f"NULL::{kind} AS {name}"
        for name, kind in (column.split() for column in _COLUMNS[view].split(", "))
    )
    return [
        f"CREATE VIEW {view} AS SELECT {columns} WHERE error('{reason}') IS NULL",
        f"COMMENT ON VIEW {view} IS '{reason}'",
    ]


def is_refused(text: str) -> bool:
    """True for the reason with which a view answers that the data have not what it needs."""
    return text.partition(": ")[0] in _COLUMNS


def views(data: Data) -> list[str]:
    """Statements that create the views over the tables of a file, but for `flames`."""
    tracepoints = _Tracepoints(data)
    return [*_of_switches(data, tracepoints), *_of_calls(tracepoints)]


def _of_switches(data: Data, tracepoints: _Tracepoints) -> list[str]:
    followed = followed_switches(data)
    name = followed or tracepoints.get("sched:sched_switch", _SWITCH)
    if name is None:
        reason = "needs the samples of sched:sched_switch, with thread, time and CPU"
        return [*refused("off_cpu", reason), *refused("run_queue", reason)]
    switches = f'"{name}"'
    if followed:
        off_cpu = _OFF_CPU.format(switches=switches, switched_in=_FOLLOWED_IN, checked="")
        return [off_cpu, *refused("run_queue", _OF_SOME + " and how long it had waited")]

    def checked(view: str) -> str:
        return _CHECKED.format(switches=switches, reason=f"{view}: {_OF_SOME}")

    woken = [
        tracepoints.get(f"sched:{name}", _WOKEN) for name in ("sched_wakeup", "sched_wakeup_new")
    ]
    return [
        _OFF_CPU.format(
            switches=switches,
            switched_in=_SWITCHED_IN.format(switches=switches),
            checked=checked("off_cpu"),
        ),
        _RUN_QUEUE.format(
            switches=switches,
            wakeups="".join(_WAKEUP.format(table=name) for name in woken if name),
            checked=checked("run_queue"),
        ),
    ]


def _of_calls(tracepoints: _Tracepoints) -> list[str]:
    prefix = "syscalls:sys_enter_"
    calls = [event.removeprefix(prefix) for event in tracepoints if event.startswith(prefix)]
    pairs = [
        (
            call,
            tracepoints.get(prefix + call, _ENTER),
            tracepoints.get(f"syscalls:sys_exit_{call}", _EXIT),
        )
        for call in calls
    ]
    parts = [
        _SYSCALL.format(name=call.replace("'", "''"), enter=enter, exit=exit)
        for call, enter, exit in pairs
        if enter and exit
    ]
    if parts:
        return [f"CREATE VIEW syscalls AS {' UNION ALL '.join(parts)}"]
    reason = "needs the samples of syscalls:sys_enter_X and syscalls:sys_exit_X of a call X"
    return refused("syscalls", reason)
