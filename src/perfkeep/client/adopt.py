"""Takes over the perf events of a running process, rings included, so that they outlive it.

What the events are comes, in this order, from the perf.data file that `perf record` has open (it
writes attrs and ids before it enables anything), from the supervisor of `perfkeep exec` when the
process runs under it, or from what the caller says, with the layout of records deduced from what
is in the rings.

`perf record` disables its events when it is ended by SIGINT or SIGTERM, for whoever has them;
ended by SIGKILL it does not.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import cast

from perfkeep import events, records
from perfkeep.abi.perf_data import HEADER, MAGIC
from perfkeep.abi.perf_event import Attr, Flag, ReadFormat, Sample
from perfkeep.client import sideband, taken
from perfkeep.client.connection import call
from perfkeep.client.opening import Wanted, kind_of, wanted
from perfkeep.client.pids import of_process, of_program
from perfkeep.client.recording import Recording, Spec
from perfkeep.client.taken import RingUsers, Taken, TakenEvent
from perfkeep.errors import DataError, PerfkeepError, UsageError
from perfkeep.formats.perf_data import reader
from perfkeep.formats.perf_data.event import EventDesc
from perfkeep.kernel import cpus
from perfkeep.records import deduce
from perfkeep.records.deduce import Written
from perfkeep.records.writers import id_place
from perfkeep.wire import instance, messages, supervisors

#: Of each ring, to find out how its records are laid out.
_LOOKED_AT = 64 << 10
_MOST_RECORDS = 512
#: A chain of records whose beginning was guessed may begin with some that are none.
_GUESSED = 16
_MOST_HEADER = 64 << 20

_ID_FIELDS = Sample.IDENTIFIER | Sample.ID | Sample.TID | Sample.TIME | Sample.CPU
#: What perf opens a dummy event for.
_SIDE_BAND = Flag.MMAP | Flag.MMAP2 | Flag.COMM | Flag.TASK


def adopt(pid: int, name: str | None = None, specs: Sequence[Spec] = ()) -> Recording:
    """Make the perf events of a running process a recording.

    They go on as they are, and so do their rings; the process notices nothing. One ring per CPU
    is adopted, with all events that write into it.

    Args:
        pid: a process; `perf record` writing to a file tells what its events are.
        name: up to 64 letters, digits, "_", "." and "-"; None: it is called by its id.
        specs: the kinds of event in the order in which the process opened them, if it does not
            tell; those of the first ring of each CPU.

    Raises:
        PerfkeepError: ESRCH no such process · ENOENT it has no perf events · EINVAL none that
            can be adopted.
        UsageError: the specs do not fit what it has.
        KernelRefused: EPERM: the caller may not trace the process.
        BrokerError: EEXIST: the name is taken, or an event is persistent already.
    """
    told = wanted(specs) if specs else []
    of_process(pid)  # /proc/PID and pidfd_open(2) are of the same process
    file = _file_of(pid)
    found = taken.take(pid, frozenset(id for one in file for id in one.all_ids))
    try:
        if not file:
            file = _of_supervisors(found)
        notes = _left_out(found)
        if file:
            rings = _of_file(found, file, notes)
            kinds, slots, used = _kinds_of_file(rings, file, told)
        else:
            rings = _first_rings(found, notes)
            kinds, slots, used = _kinds_as_told(rings, told, notes)
        _check_readable(kinds)
        ring = _one_kind_of_ring(rings, notes)
        target = of_program(pid, taken.follow_tasks(rings))
        request = messages.Start(name, ring, kinds, slots, target, None, adopted=True)
        started, _ = call("Start", request, [event.fd for event in used])
    finally:
        found.close()
    made = cast(messages.Started, started).name
    notes += sideband.add(made, kinds, target, sorted({slot.cpu for slot in slots}))
    return Recording(made, notes)


def _cannot(why: str, hint: str = "") -> PerfkeepError:
    return PerfkeepError(errno.EINVAL, why, hint=hint)


def _check_readable(kinds: list[messages.Kind]) -> None:
    """Raises: PerfkeepError: EINVAL: nobody could tell the samples of these events apart."""
    attrs = [Attr.unpack(kind.attr) for kind in kinds]
    if len(kinds) > 1 and id_place(attrs) is None:
        raise _cannot(
            f"the samples of its {len(kinds)} kinds of event carry no id in one place that tells them "
            "apart, so no reader could: they cannot be adopted"
        )


# --- which rings --------------------------------------------------------------------------------


def _left_out(found: Taken) -> list[str]:
    """A note on each group of events that cannot be adopted.

    Raises:
        PerfkeepError: EINVAL: nothing else is there.
    """
    notes = []
    if found.homeless:
        notes.append(
            f"{found.homeless} of its events follow a task over all CPUs and cannot persist; "
            "they are left alone"
        )
    if found.bare:
        notes.append(
            f"{found.bare} of its events have no ring, or the task they were for has ended; "
            "they are left alone"
        )
    if not found.rings:
        hint = (
            "perf record without --per-thread opens an event for each CPU" if found.homeless else ""
        )
        raise _cannot(f"process {found.pid} has no event that can be adopted: " + notes[0], hint)
    return notes


def _one_per_cpu(rings: Iterable[RingUsers]) -> list[RingUsers]:
    """Raises: PerfkeepError: EINVAL: a CPU has several, and nothing says which is wanted."""
    chosen: dict[int, RingUsers] = {}
    for one in rings:
        if chosen.setdefault(one.side.cpu, one) is not one:
            raise _cannot(
                f"the process has several rings on CPU {one.side.cpu}, and a recording has one "
                "per CPU: they cannot be adopted"
            )
    return [chosen[cpu] for cpu in sorted(chosen)]


def _of_file(found: Taken, file: list[EventDesc], notes: list[str]) -> list[RingUsers]:
    """The rings that the perf.data file is filled from; each less the events that are not in it."""
    if len(file) == 1 and not file[0].all_ids:
        # A single kind needs no ids: all that writes beside it into its rings is of that kind.
        return _first_rings(found, notes)
    inside = []
    for ring in found.rings:
        members = [event for event in ring.events if event.kernel_id in found.known]
        if members and members[0] is not ring.events[0]:
            raise _cannot(
                f"the ring on CPU {ring.side.cpu} belongs to an event that is not in the "
                "process's perf.data file; it cannot be adopted"
            )
        if members:
            inside.append(replace(ring, events=members))
    if not inside:
        raise _cannot("none of the process's rings has an event of its perf.data file")
    rest = sum(len(ring.events) for ring in found.rings) - sum(len(r.events) for r in inside)
    if rest:
        notes.append(f"{rest} of its events are not in its perf.data file; they are left alone")
    return _one_per_cpu(inside)


def _first_rings(found: Taken, notes: list[str]) -> list[RingUsers]:
    """Of each CPU the ring that was made first."""
    chosen: dict[int, RingUsers] = {}
    for ring in found.rings:
        chosen.setdefault(ring.side.cpu, ring)
    rest = len(found.rings) - len(chosen)
    if rest:
        notes.append(f"{rest} more of its rings are left alone: only the first per CPU is adopted")
    return [chosen[cpu] for cpu in sorted(chosen)]


def _one_kind_of_ring(rings: list[RingUsers], notes: list[str]) -> messages.Ring:
    """What all of them have in common.

    Raises:
        PerfkeepError: EINVAL: they differ.
    """
    first = rings[0]
    for one in rings:
        a, b = (replace(each.side, cpu=0) for each in (first, one))
        if a != b or one.ring.bytes != first.ring.bytes:
            raise _cannot(
                f"the rings on CPUs {first.side.cpu} and {one.side.cpu} differ in size, clock "
                "or direction, and those of a recording agree: they cannot be adopted"
            )
    overwrites = all(one.ring.overwrites for one in rings)
    if not overwrites:
        notes.append(
            f"its ring does not overwrite: when its reader ends, what comes after "
            f"{first.ring.bytes} bytes per CPU is lost and counted; that of perf record --overwrite "
            "goes on"
        )
    kind: messages.RingKind = "backward" if first.side.backward else "forward"
    return messages.Ring(kind, first.ring.bytes, overwrites)


# --- what the events are: from perf's own file --------------------------------------------------


def _file_of(pid: int) -> list[EventDesc]:
    """The kinds of event in the perf.data file that a process has open; none if there is none."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return []  # whoever takes the events will say why
    for name in sorted(names, key=int):
        with suppress(OSError, DataError):
            if found := _kinds_in(f"/proc/{pid}/fd/{name}"):
                return found
    return []


def _of_supervisors(found: Taken) -> list[EventDesc]:
    """The kinds of event of a process under `perfkeep exec`; none if any of them is not known."""
    ids = [event.kernel_id for ring in found.rings for event in ring.events]
    known = supervisors.ask(instance.current(), ids)
    if set(ids) - known.keys():
        return []
    kinds: dict[tuple[bytes, str | None], EventDesc] = {}
    for id in ids:
        one = known[id]
        attr = Attr.unpack(one.attr)
        kind = kinds.setdefault((one.attr, one.path), EventDesc("", attr, {}, None))
        kind.ids.setdefault(one.cpu, []).append(id)
    found.known = frozenset(ids)
    return list(kinds.values())


def _kinds_in(path: str) -> list[EventDesc]:
    """Raises: OSError · DataError: it is no perf.data file."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # to open anything else may do something
        return []
    with open(path, "rb", buffering=0) as file:
        header = file.read(HEADER.size)
        if header[:8] != MAGIC or len(header) < HEADER.size:
            return []
        magic, size, each, attrs_at, attrs_size, data_at, *_ = HEADER.unpack(header)
        # While it is written, neither the size of the data nor the features are there.
        length = min(data_at, _MOST_HEADER)
        plain = HEADER.pack(magic, size, each, attrs_at, attrs_size, length, 0, 0, 0, b"")
        rest = os.pread(file.fileno(), max(0, length - HEADER.size), HEADER.size)
    return reader.parse(memoryview(plain + rest)).events


def _kinds_of_file(
    rings: list[RingUsers], file: list[EventDesc], told: list[Wanted]
) -> tuple[list[messages.Kind], list[messages.Slot], list[TakenEvent]]:
    from perfkeep.events.naming import event_of

    parsed = [event_of(one.attr) for one in file]
    for one in told:
        same = (one.event.attr.type, one.event.attr.config)
        if same not in [(kind.attr.type, kind.attr.config) for kind in parsed]:
            there = ", ".join(kind.text for kind in parsed)
            raise UsageError(f"the process does not record {one.event.text}; it records {there}")
    of_kind = {id: place for place, kind in enumerate(file) for id in kind.all_ids}
    slots, used = [], []
    for ring in rings:
        for event in ring.events:
            slots.append(messages.Slot(of_kind.get(event.kernel_id, 0), ring.side.cpu))
            used.append(event)
    places = sorted({slot.kind for slot in slots})
    kinds = [kind_of(parsed[place], file[place].attr) for place in places]
    return kinds, [messages.Slot(places.index(s.kind), s.cpu) for s in slots], used


# --- what the events are: as told ---------------------------------------------------------------


def _kinds_as_told(
    rings: list[RingUsers], told: list[Wanted], notes: list[str]
) -> tuple[list[messages.Kind], list[messages.Slot], list[TakenEvent]]:
    for ring in rings:
        if len(ring.events) != len(told):
            raise UsageError(
                f"the process does not tell what its events are: it has {len(ring.events)} kinds of event in its ring on CPU {ring.side.cpu}, and {len(told)} were named",
                hint="name each with -e, in the order in which they were opened; -e dummy for the one that perf record adds behind all others",
            )
    layouts = _layouts(rings)
    kinds = []
    for place, one in enumerate(told):
        ids = {ring.events[place].kernel_id for ring in rings}
        attr = _attr(one, rings[0], place, _sample_type(one, ids, layouts))
        if not layouts.trailers:
            attr = attr.with_flags(off=Flag.SAMPLE_ID_ALL)
        kinds.append(kind_of(one.event, attr, one.filter))
    slots = [
        messages.Slot(place, ring.side.cpu) for ring in rings for place in range(len(ring.events))
    ]
    return kinds, slots, [event for ring in rings for event in ring.events]


def _layouts(rings: list[RingUsers]) -> deduce.Found:
    """The layout of their records.

    Raises:
        PerfkeepError: EAGAIN: there is no sample yet to see it from · EINVAL: no known one.
    """
    found = [one for ring in rings for one in _records(ring)]
    if not any(deduce.is_sample(one.record) for one in found):
        raise PerfkeepError(
            errno.EAGAIN,
            "the process does not tell how its samples are laid out, and no sample is in its rings "
            "yet to see it from",
            hint="adopt it again once it has recorded something",
        )
    ids = {event.kernel_id for ring in rings for event in ring.events}
    layouts = deduce.layouts(found, ids)
    if layouts is None:
        where = cpus.format_list(ring.side.cpu for ring in rings)
        raise _cannot(
            f"the {len(found)} records looked at, in the rings of CPUs {where}, fit no layout of "
            "samples that is known, so that nobody could read them: they cannot be adopted"
        )
    return layouts


def _records(ring: RingUsers) -> list[Written]:
    """The newest records of a ring, oldest first."""
    backward = ring.side.backward
    data, cut = ring.ring.newest(backward, min(_LOOKED_AT, ring.ring.bytes // 2))
    guessed = cut and not backward
    start = records.first_chained(data, 0, b"") if guessed else 0
    chain = records.walk(data, start, len(data), every=1)
    ends = [*chain.marks[1:], chain.end]
    found = [
        Written(ring.side.cpu, data[at:end]) for at, end in zip(chain.marks, ends, strict=False)
    ]
    if backward:
        return found[:_MOST_RECORDS][::-1]
    return found[_GUESSED if guessed else 0 :][-_MOST_RECORDS:]


def _sample_type(one: Wanted, ids: set[int], layouts: deduce.Found) -> Sample:
    for id in ids:
        if id in layouts.sample_types:
            return layouts.sample_types[id]
    common = layouts.sample_types[None]
    if not common & Sample.IDENTIFIER:
        return common
    raw = Sample.RAW if one.event.tracepoint else Sample(0)
    period = Sample(0) if one.event.attr.dummy else Sample.PERIOD
    return common & _ID_FIELDS | Sample.IP | raw | period


def _attr(one: Wanted, ring: RingUsers, place: int, sample_type: Sample) -> Attr:
    """The event's attr, as far as it can be known."""
    attr = events.for_flight_ring(one.event, call_chains=False)
    event, side = ring.events[place], ring.side
    attr = replace(
        attr,
        sample_type=sample_type,
        read_format=_read_format(event),
        wakeup_events=0,
        clockid=int(side.clock or 0),
    ).with_flags(off=Flag.WRITE_BACKWARD | Flag.USE_CLOCKID | Flag.WATERMARK | Flag.DISABLED)
    if side.backward:
        attr = attr.with_flags(Flag.WRITE_BACKWARD)
    if side.clock is not None:
        attr = attr.with_flags(Flag.USE_CLOCKID)
    if attr.dummy:
        attr = attr.with_flags(_SIDE_BAND)
    return attr


def _read_format(event: TakenEvent) -> ReadFormat:
    """Raises: PerfkeepError: EINVAL: what it reads as makes no sense."""
    words = memoryview(os.read(event.fd.fileno(), 16 << 10)).cast("Q").tolist()
    found = deduce.read_format(words, event.kernel_id)
    if found is None:
        raise _cannot(
            f"a read of an event gives {len(words)} numbers, of which it cannot be told what they "
            "are; groups of events cannot be adopted"
        )
    return found
