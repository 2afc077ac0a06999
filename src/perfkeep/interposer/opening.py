"""perf_event_open(2) under `perfkeep exec`."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from perfkeep import events
from perfkeep.abi.perf_event import (
    PERF_TYPE_PERSISTENT,
    Attr,
    Flag,
    OpenFlag,
    Sample,
    Software,
    Type,
)
from perfkeep.client.event import PerfEvent, claim, reopen
from perfkeep.client.recording import infos
from perfkeep.errors import BrokerError
from perfkeep.interposer.calls import GO_ON, Answer, NewFd, OpenCall, Refusal
from perfkeep.interposer.table import Opened, Reopened, Table
from perfkeep.interposer.unclaim import unclaim
from perfkeep.kernel import cpus, perf_fd, pmus, process
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.syscalls import perf_event_open
from perfkeep.wire.messages import Kind

#: config1 of a reopened event, `lenient` in sysfs: on a CPU where the event does not live, one that
#: never counts, and for samples an event of the caller's own. See perf_persistent(2).
LENIENT = 1

_COUNTS_ON = "persistent events count from when they were started, not from when COMMAND was"
_NO_CGROUP = (
    "a persistent event counts the tasks that it was started for, and not those of a cgroup; "
    "perfkeep start --cgroup starts one that does"
)
_NO_GROUP = (
    "a persistent event counts on by itself and cannot be in a group with other events; "
    "name it beside the group, as in -e '{cycles,instructions}' -e persistent/NAME/"
)
#: Those that make sense for an event of a CPU.
_OF_A_CPU = int(OpenFlag.FD_NO_GROUP | OpenFlag.FD_OUTPUT | OpenFlag.FD_CLOEXEC)
_TYPE_AND_FLAGS = struct.Struct("=I36xQ")
_PERSISTENT = int(Flag.PERSISTENT)
# Of fields of struct perf_event_attr.
_FLAGS_AT, _CONFIG1_AT = 40, 56
_WORD = struct.Struct("=Q")
_EXCLUDE = (
    Flag.EXCLUDE_USER | Flag.EXCLUDE_KERNEL | Flag.EXCLUDE_HV | Flag.EXCLUDE_IDLE
    | Flag.EXCLUDE_HOST | Flag.EXCLUDE_GUEST
)  # fmt: skip


def is_ours(call: OpenCall) -> bool:
    """Whether a kernel would not understand it: the type, and the flags 40 bytes into the attr."""
    type, flags = _TYPE_AND_FLAGS.unpack_from(call.attr)
    return type == PERF_TYPE_PERSISTENT or bool(flags & _PERSISTENT)


def in_place(call: OpenCall, table: Table, rights: tuple[bytes | str, ...]) -> Answer:
    """An ordinary event: opened here when it is one of a CPU, so that its attr is known if it
    is unclaimed later. All else goes to the kernel, and so does what cannot be opened, whose
    errno is the kernel's to say.
    """
    if call.flags & OpenFlag.FD_OUTPUT and _in_its_group(call, table):
        return _without_output(call, table, rights)
    if call.pid != -1 or call.cpu < 0 or call.flags & ~_OF_A_CPU:
        return GO_ON
    if not call.caller.has_rights(rights):
        return GO_ON
    try:
        if _in_its_group(call, table):
            return Refusal(errno.EINVAL, _NO_GROUP)
        return _open(call, table)
    except OSError:
        return GO_ON


def _without_output(call: OpenCall, table: Table, rights: tuple[bytes | str, ...]) -> Answer:
    """Open an event whose output PERF_FLAG_FD_OUTPUT directs into a persistent event's ring, without
    that output: as with SET_OUTPUT, no other event writes there.
    """
    if not call.caller.has_rights(rights):
        return Refusal(errno.EACCES)
    flags = call.flags & ~(OpenFlag.FD_OUTPUT | OpenFlag.FD_NO_GROUP)
    try:
        return _open(call._replace(group_fd=-1, flags=flags), table)
    except OSError as error:
        # Not the kernel's to answer: it would direct the output there.
        return Refusal(error.errno or errno.EINVAL)


def persistent(call: OpenCall, table: Table, rights: tuple[bytes | str, ...]) -> Answer:
    """A call that is ours: it reopens an event, or opens one that persists."""
    if call.flags & ~(_OF_A_CPU | OpenFlag.PID_CGROUP):
        return Refusal(errno.EINVAL)
    if not call.caller.has_rights(rights):
        # The broker would take it for us; with rights of its own it must ask by itself.
        return Refusal(errno.EACCES)
    if _TYPE_AND_FLAGS.unpack_from(call.attr)[0] == PERF_TYPE_PERSISTENT:
        try:
            return _reopen(call, table)
        except BrokerError as error:
            return Refusal(error.errno or errno.EIO, str(error))
    if call.pid != -1 or call.cpu < 0 or call.flags & OpenFlag.PID_CGROUP:
        return Refusal(errno.EINVAL)
    opened = _open(call, table)
    kernel_id = perf_fd.event_id(opened.fd.fileno())
    unclaim(opened.fd, table.opened[kernel_id])
    return replace(opened, undo=partial(claim, opened.fd))


# --- opening ----------------------------------------------------------------------------------


def _open(call: OpenCall, table: Table) -> NewFd:
    """Open the event as the program asked for it.

    Raises:
        OSError: the kernel's errno.
    """
    # The bytes as they came: the program may know fields that we do not.
    type, flags = _TYPE_AND_FLAGS.unpack_from(call.attr)
    buffer = bytearray(call.attr)
    _WORD.pack_into(buffer, _FLAGS_AT, flags & ~_PERSISTENT)
    known = bytes(buffer)
    path = _probed(call, type)
    if path is not None:
        _WORD.pack_into(buffer, _CONFIG1_AT, 0)
        known = bytes(buffer)
        name = ctypes.create_string_buffer(_as_seen_from(call.caller.thread, type, path))
        _WORD.pack_into(buffer, _CONFIG1_AT, ctypes.addressof(name))
    with _leader(call) as leader, _target(call) as target:
        fd = perf_event_open(bytes(buffer), target, call.cpu, leader, OpenFlag(call.flags))
    text = None if path is None else os.fsdecode(path)
    if call.pid == -1:
        _remember(table, fd, Opened(known, call.cpu, call.caller.process, text))
    return NewFd(fd, call.cloexec)


@contextmanager
def _leader(call: OpenCall) -> Iterator[int]:
    """The leader of the group that the caller names, as an fd of ours; -1 for none.

    Raises:
        OSError: EBADF.
    """
    if call.group_fd < 0:
        yield -1
        return
    with process.take_fd(call.caller.thread, call.group_fd) as leader:
        yield leader.fileno()


@contextmanager
def _target(call: OpenCall) -> Iterator[int]:
    """The pid argument as it is from here: a thread's id, -1, or an fd of ours for a cgroup.

    Raises:
        OSError: EBADF.
    """
    if call.flags & OpenFlag.PID_CGROUP:
        with process.take_fd(call.caller.thread, call.pid) as cgroup:
            yield cgroup.fileno()
    else:
        yield call.caller.thread if call.pid == 0 else call.pid


def _in_its_group(call: OpenCall, table: Table) -> bool:
    """True if the leader of the group that the caller names is a persistent event.

    Raises:
        OSError: EBADF.
    """
    with _leader(call) as leader:
        try:
            return leader >= 0 and perf_fd.event_id(leader) in table.reopened
        except OSError:
            return False  # not an event: the kernel's to refuse


def _remember(table: Table, fd: OwnedFd, opened: Opened) -> None:
    table.opened[perf_fd.event_id(fd.fileno())] = opened


def _probed(call: OpenCall, type: int) -> bytes | None:
    """What config1 points at when the event is a probe. The kernel would read our memory there.

    Raises:
        OSError: it cannot be read.
    """
    (config1,) = _WORD.unpack_from(call.attr, _CONFIG1_AT)
    if type <= Type.BREAKPOINT or not config1 or type not in _probe_types():
        return None
    return process.read_string(call.caller.thread, config1)


def _probe_types() -> set[int]:
    """attr.type of uprobes and kprobes, on this kernel."""
    if not _PROBE_TYPES:
        for name in ("uprobe", "kprobe"):
            try:
                _PROBE_TYPES[name] = pmus.type_of(name)
            except OSError:
                _PROBE_TYPES[name] = -1
    return set(_PROBE_TYPES.values())


_PROBE_TYPES: dict[str, int] = {}


def _as_seen_from(thread: int, type: int, path: bytes) -> bytes:
    """A file's path, looked up where the program would: its root and directory may be others."""
    if type != _PROBE_TYPES["uprobe"]:
        return path
    start = b"root" if path.startswith(b"/") else b"cwd"
    return b"/proc/%d/%s/%s" % (thread, start, path.lstrip(b"/"))


# --- reopening --------------------------------------------------------------------------------


def _reopen(call: OpenCall, table: Table) -> Answer:
    """PERF_TYPE_PERSISTENT: an fd for the event that runs.

    Raises:
        OSError: EINVAL bad CPU · EACCES · ENOENT.
    """
    asked = Attr.unpack(call.attr)
    lenient = bool(asked.config1 & LENIENT)
    id = asked.config
    if not 0 < id < 1 << 63:
        return Refusal(errno.ENOENT)
    # Counters ask for no field of a sample but the id, as `perf stat` does.
    if lenient and (asked.sample_period or asked.sample_type & ~Sample.IDENTIFIER):
        return _sampling(call, table, id, asked)
    if call.flags & OpenFlag.PID_CGROUP:
        return Refusal(errno.EINVAL, _NO_CGROUP)
    if call.group_fd >= 0 and not _in_its_group(call, table):
        return Refusal(errno.EINVAL, _NO_GROUP)
    try:
        event = reopen(id, max(call.cpu, -1))
    except BrokerError as error:
        if not lenient or not _lives_elsewhere(call, error):
            raise
        with _elsewhere(id) as event:
            return _own(call, table, _nothing(event.attr))
    with event:
        remark = _COUNTS_ON if lenient else ""
        return replace(_the_same(call, table, event), remark=remark)


def _sampling(call: OpenCall, table: Table, id: int, asked: Attr) -> NewFd:
    """For who asks for samples: an event of the caller's own, of all tasks or of one, like the
    persistent one."""
    try:
        # Of a task, on whatever CPU it runs, is a thing that the persistent event is not.
        event = reopen(id, call.cpu) if call.cpu >= 0 or call.pid < 0 else _elsewhere(id)
    except BrokerError as error:
        if not _lives_elsewhere(call, error):
            raise
        with _elsewhere(id) as event:
            return _own(call, table, _nothing(_alike(asked, event.attr)))
    with event:
        return _own(call, table, _alike(asked, event.attr), event.kind)


def _lives_elsewhere(call: OpenCall, error: BrokerError) -> bool:
    return error.errno == errno.ENOENT and call.cpu in cpus.online()


def _elsewhere(id: int) -> PerfEvent:
    """The event on the first CPU where it lives.

    Raises:
        BrokerError: ENOENT: it lives nowhere.
    """
    found = [event.cpus[0] for info in infos() for event in info.events if event.id == id]
    return reopen(id, found[0] if found else 0)


def _the_same(call: OpenCall, table: Table, event: PerfEvent) -> NewFd:
    kernel_id, process_id = event.ids.kernel, call.caller.process
    known = table.reopened.get(kernel_id)
    numbers = known.numbers if known else set()
    table.reopened[kernel_id] = Reopened(
        Attr.unpack(call.attr).config, call.cpu, event.ring_id, numbers
    )
    if kernel_id not in table.opened:
        table.opened[kernel_id] = Opened(event.kind.attr, call.cpu, 0)
    _write_back(call, event.attr)
    return NewFd(event.dup(), call.cloexec, lambda number: numbers.add((process_id, number)))


def _nothing(attr: Attr) -> Attr:
    """An event that never counts and never samples, in place of one that a CPU has not. It is
    read like the others."""
    return replace(attr, type=Type.SOFTWARE, config=Software.DUMMY, config1=0, config2=0)


def _alike(asked: Attr, running: Attr) -> Attr:
    """An event of the caller's own that counts what the running one counts, from now on.

    What perf reads while it is written to must be its own: it pauses a ring to read it, or reads
    records that are half overwritten, and it wants the ring in its own size and direction.

    The event is the running one's: what is counted, where, and how often it is sampled; all else
    is the caller's. A caller that names a fixed period, as `perf record -c` does, gets it: its
    file says that every sample stands for that many.
    """
    fixed = bool(asked.sample_period) and not asked.flags & Flag.FREQ
    period = asked if fixed or not (asked.sample_period and running.sample_period) else running
    flags = (running.flags & _EXCLUDE) | (period.flags & Flag.FREQ)
    return replace(
        asked,
        type=running.type,
        config=running.config,
        config1=running.config1,
        config2=running.config2,
        config3=running.config3,
        bp_type=running.bp_type,
        flags=asked.with_flags(flags, Flag.FREQ & ~flags).flags,
        precise_ip=running.precise_ip,
        sample_type=_fields(asked.sample_type, running.sample_type),
        sample_period=period.sample_period,
        sample_max_stack=asked.sample_max_stack or running.sample_max_stack,
    )


def _fields(asked: Sample, running: Sample) -> Sample:
    """The fields of a sample: the caller's, and call chains and raw data where the event has them.

    perf decides before it opens its events how it finds a sample's event in the file: by
    PERF_SAMPLE_IDENTIFIER, or by PERF_SAMPLE_ID, which lies at one place only where all events
    have the same fields. In that case nothing may be added.
    """
    if asked & Sample.ID and not asked & Sample.IDENTIFIER:
        return asked
    return asked | running & (Sample.CALLCHAIN | Sample.RAW)


def _own(call: OpenCall, table: Table, attr: Attr, like: Kind | None = None) -> NewFd:
    """Open an event of the caller's own, for the task and in the group that it named.

    Args:
        like: the persistent event's kind, for what its attr does not say: a probe's file, a filter.

    Raises:
        OSError: the kernel's errno.
    """
    path = events.parse(like.event)[0].path if like and attr.type in _probe_types() else None
    name = None if path is None else ctypes.create_string_buffer(os.fsencode(path))
    there = attr if name is None else replace(attr, config1=ctypes.addressof(name))
    with _leader(call) as leader, _target(call) as target:
        flags = OpenFlag(call.flags & OpenFlag.PID_CGROUP)
        fd = perf_event_open(there, target, call.cpu, leader, flags)
    if like and like.filter is not None:
        perf_fd.set_filter(fd.fileno(), like.filter)
    if call.pid == -1:
        _remember(table, fd, Opened(attr.pack(), call.cpu, call.caller.process, path))
    _write_back(call, attr)
    return NewFd(fd, call.cloexec)


def _write_back(call: OpenCall, running: Attr) -> None:
    """Tell the caller how to read the event: sample_type, read_format, flags, period and clock.

    The rest of the attr stays as it is. With the event's own type perf would promise to add the
    formats of tracepoints to its file, and not do so.
    """
    asked = Attr.unpack(call.attr)
    disabled = asked.flags & Flag.DISABLED
    told = replace(
        asked,
        sample_type=running.sample_type,
        read_format=running.read_format,
        flags=running.with_flags(disabled, Flag.DISABLED & ~disabled).flags,
        sample_period=running.sample_period,
        precise_ip=running.precise_ip,
        clockid=running.clockid,
    ).pack()
    # From sample_period to the flags, and the clock where the caller's attr has one.
    pieces = [(16, 48)] + ([(92, 96)] if len(call.attr) >= 96 else [])
    for start, end in pieces:
        try:
            process.write_memory(call.caller.thread, call.pointer + start, told[start:end])
        except OSError:
            pass  # an attr that the program keeps read-only stays as it is
