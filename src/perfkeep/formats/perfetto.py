"""A Perfetto trace, as https://ui.perfetto.dev and trace_processor read it:
https://perfetto.dev/docs/reference/trace-packet-proto

    sequence 1      processes and threads, switches of the scheduler, other events as instants
    sequence 2 …    samples of one event each, as each has its own "what was counted"

Times are the recording's own. Switches of the scheduler are written as ftrace writes them, so that
Perfetto makes slices, states and wake-ups of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from perfkeep.abi.perf_event import Hardware, Software, Type
from perfkeep.formats.protobuf import number, piece, text
from perfkeep.formats.sampled import Facts, Sampled

# Fields of TracePacket.
_FTRACE, _PROCESSES, _CLOCKS, _TIMESTAMP, _SEQUENCE, _EVENT = 1, 2, 6, 8, 10, 11
_INTERNED, _FLAGS, _SYSTEM, _DEFAULTS, _TRACK, _SAMPLE = 12, 13, 45, 59, 60, 66
_CLEARED, _NEEDED = 1, 2  # SequenceFlags
_REALTIME, _MONOTONIC, _BOOTTIME = 1, 3, 6  # BuiltinClock
_INSTANT = 3  # TrackEvent.Type
_BUNDLE = 1000
#: PerfEvents.Counter
_COUNTERS: Mapping[tuple[int, int], int] = {
    (Type.SOFTWARE, Software.CPU_CLOCK): 1,
    (Type.SOFTWARE, Software.PAGE_FAULTS): 2,
    (Type.SOFTWARE, Software.TASK_CLOCK): 3,
    (Type.SOFTWARE, Software.CONTEXT_SWITCHES): 4,
    (Type.HARDWARE, Hardware.CPU_CYCLES): 10,
    (Type.HARDWARE, Hardware.INSTRUCTIONS): 11,
    (Type.HARDWARE, Hardware.CACHE_REFERENCES): 12,
    (Type.HARDWARE, Hardware.CACHE_MISSES): 13,
    (Type.HARDWARE, Hardware.BRANCH_INSTRUCTIONS): 14,
    (Type.HARDWARE, Hardware.BRANCH_MISSES): 15,
}
_CPU_TRACK = 1 << 62

#: A value of a field of an event.
Value = int | str | bytes | Sequence[int]


class Switch(NamedTuple):
    """sched_switch"""

    time: int
    cpu: int
    prev_comm: str
    prev_pid: int
    prev_prio: int
    prev_state: int
    next_comm: str
    next_pid: int
    next_prio: int


class Wakeup(NamedTuple):
    """sched_waking, sched_wakeup or sched_wakeup_new, as `kind` says; `tid` wakes `woken`."""

    kind: str
    time: int
    cpu: int
    tid: int
    comm: str
    woken: int
    prio: int
    target: int


class Instant(NamedTuple):
    """Any other event."""

    time: int
    cpu: int
    pid: int
    tid: int
    name: str
    fields: Mapping[str, Value]


class Thread(NamedTuple):
    tid: int
    pid: int
    name: str


#: Where each lies in FtraceEvent.
WAKEUPS = {"sched_waking": 20, "sched_wakeup": 17, "sched_wakeup_new": 114}
_SWITCH = 4


def _packet(*parts: bytes) -> bytes:
    return piece(1, b"".join(parts))


def head(facts: Facts, threads: Iterable[Thread], clock: tuple[int, int | None]) -> Iterator[bytes]:
    """What stands at the beginning.

    Args:
        clock: a time of the recording, and the wall clock's then, in ns since 1970, if known.
    """
    time, wall = clock
    clocks = [(_MONOTONIC, time), (_BOOTTIME, time)]
    if wall is not None:
        clocks.append((_REALTIME, wall))
    snapshot = b"".join(piece(1, number(1, id) + number(2, at)) for id, at in clocks)
    yield _packet(piece(_CLOCKS, snapshot), number(_SEQUENCE, 1))
    # prev_state means something else in each kernel.
    names = text(1, "Linux") + text(3, facts.release) + text(4, facts.machine)
    yield _packet(piece(_SYSTEM, piece(1, names) + number(8, facts.cpus)), number(_SEQUENCE, 1))
    yield _packet(number(_SEQUENCE, 1), number(_FLAGS, _CLEARED))
    some = [one for one in threads if one.tid]
    leaders = {one.pid: one.name for one in some if one.pid == one.tid}
    tree = b"".join(
        piece(1, number(1, pid) + text(3, leaders.get(pid, f"process {pid}")) + number(9, 1))
        for pid in sorted({one.pid for one in some} - {0})
    )
    tree += b"".join(
        piece(2, number(1, one.tid) + text(2, one.name) + number(3, one.pid)) for one in some
    )
    yield _packet(piece(_PROCESSES, tree), number(_TIMESTAMP, time), number(_SEQUENCE, 1))
    for one in some:
        described = number(1, one.pid) + number(2, one.tid) + text(5, one.name)
        yield _packet(
            piece(_TRACK, number(1, _uuid(one.pid, one.tid)) + piece(4, described)),
            number(_SEQUENCE, 1),
        )


def _uuid(pid: int, tid: int) -> int:
    return pid << 32 | tid


def ftrace(found: Iterable[Switch | Wakeup]) -> Iterator[bytes]:
    """Events of the scheduler, in bundles of one CPU each."""
    waiting: dict[int, list[bytes]] = {}
    for one in found:
        if isinstance(one, Switch):
            body = piece(
                _SWITCH,
                text(1, one.prev_comm) + number(2, one.prev_pid) + number(3, one.prev_prio)
                + number(4, one.prev_state) + text(5, one.next_comm) + number(6, one.next_pid)
                + number(7, one.next_prio),
            )  # fmt: skip
            tid = one.prev_pid
        else:
            body = piece(
                WAKEUPS[one.kind],
                text(1, one.comm) + number(2, one.woken) + number(3, one.prio) + number(4, 1)
                + number(5, one.target),
            )  # fmt: skip
            tid = one.tid
        some = waiting.setdefault(one.cpu, [])
        some.append(piece(2, number(1, one.time) + number(2, tid) + body))
        if len(some) >= _BUNDLE:
            yield _bundle(one.cpu, waiting.pop(one.cpu))
    for cpu, some in waiting.items():
        yield _bundle(cpu, some)


def _bundle(cpu: int, events: list[bytes]) -> bytes:
    return _packet(piece(_FTRACE, number(1, cpu) + b"".join(events)), number(_SEQUENCE, 1))


class Instants:
    """Writes events as instants on the tracks of their threads, or of the CPU where that is idle."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._fields: dict[str, int] = {}
        self._idle: set[int] = set()

    def write(self, found: Iterable[Instant]) -> Iterator[bytes]:
        for one in found:
            track = _uuid(one.pid, one.tid)
            if not one.tid:
                track = _CPU_TRACK + one.cpu
                if one.cpu not in self._idle:
                    self._idle.add(one.cpu)
                    named = number(1, track) + text(2, f"idle CPU {one.cpu}")
                    yield _packet(piece(_TRACK, named), number(_SEQUENCE, 1))
            new = bytearray()
            name = self._intern(self._names, one.name, 2, new)
            fields = b"".join(
                piece(4, number(1, self._intern(self._fields, field, 3, new)) + _value(value))
                for field, value in one.fields.items()
            )
            yield _packet(
                number(_TIMESTAMP, one.time),
                number(_SEQUENCE, 1),
                number(_FLAGS, _NEEDED),
                piece(_INTERNED, bytes(new)) if new else b"",
                piece(
                    _EVENT,
                    number(9, _INSTANT) + number(11, track) + number(10, name) + fields,
                ),
            )

    @staticmethod
    def _intern(known: dict[str, int], name: str, field: int, new: bytearray) -> int:
        if name not in known:
            known[name] = len(known) + 1
            new += piece(field, number(1, known[name]) + text(2, name))
        return known[name]


def _value(value: Value) -> bytes:
    """Of a DebugAnnotation."""
    if isinstance(value, str):
        return text(6, value)
    if isinstance(value, bytes):
        return text(6, value.hex())
    if isinstance(value, int):
        return number(3, value & (1 << 64) - 1) if value >= 2**63 else number(4, value)
    return b"".join(piece(12, _value(one)) for one in value)


def samples(sampled: Sampled, sequence: int) -> Iterator[bytes]:
    """The samples of one event with their call stacks."""
    timebase = number(4, _COUNTERS.get(sampled.attr.generic, 0)) + text(10, sampled.event)
    yield _packet(
        number(_SEQUENCE, sequence),
        number(_FLAGS, _CLEARED),
        piece(_DEFAULTS, piece(12, piece(1, timebase))),
        piece(_INTERNED, b"".join(_interned(sampled))),
    )
    suffix = number(_SEQUENCE, sequence) + number(_FLAGS, _NEEDED)
    counted: dict[int, int] = {}
    for row in sampled.rows:
        stack = sampled.stacks[row.stack]
        kernel = bool(stack) and sampled.functions[stack[-1]][1] == "[kernel]"
        counted[row.cpu] = counted.get(row.cpu, 0) + row.period
        body = number(1, row.cpu) + number(2, row.pid) + number(3, row.tid)
        body += (
            number(4, row.stack + 1) + number(5, 1 if kernel else 2) + number(6, counted[row.cpu])
        )
        yield _packet(number(_TIMESTAMP, row.time), suffix, piece(_SAMPLE, body))


def _interned(sampled: Sampled) -> Iterator[bytes]:
    """InternedData: functions, their files, frames and stacks."""
    files = {"": 1}
    yield piece(16, number(1, 1) + piece(2, b""))
    for at, (name, file) in enumerate(sampled.functions):
        yield piece(5, number(1, at + 1) + text(2, name))
        files.setdefault(file, len(files) + 1)
    for file, id in files.items():
        yield piece(17, number(1, id) + text(2, file.removeprefix("/")))
        yield piece(19, number(1, id) + number(2, 1) + (number(7, id) if file else b""))
    for at, (_, file) in enumerate(sampled.functions):
        # What tells functions of one file apart, as samples keep no address.
        place = number(4, at + 1)
        yield piece(6, number(1, at + 1) + number(2, at + 1) + number(3, files[file]) + place)
    for at, stack in enumerate(sampled.stacks):
        frames = b"".join(number(2, frame + 1) for frame in stack)
        yield piece(7, number(1, at + 1) + frames)
