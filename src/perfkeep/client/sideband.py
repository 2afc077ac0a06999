"""Has the kernel tell of processes beside a recording: opens its sideband, and says what runs now.

Without it samples of a process that ended before a snapshot have no names. That a user may not open
one is no reason to have no recording.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

import msgspec

from perfkeep.abi.perf_event import Attr, Flag, OpenFlag, Sample, Software, Type
from perfkeep.abi.records import SAMPLE_ID_WORDS, SAMPLE_WORDS, bits, word_count
from perfkeep.client import opening
from perfkeep.client.connection import Connection, call
from perfkeep.client.pids import are_in_proc, are_of_here
from perfkeep.errors import Note
from perfkeep.formats.perf_data.event import EventDesc
from perfkeep.formats.perf_data.synthesized import process
from perfkeep.kernel import procfs
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.memfd import sealed
from perfkeep.kernel.syscalls import perf_event_open
from perfkeep.wire import messages
from perfkeep.wire.sideband import WATERMARK

NAME = "dummy:u"
_TELLS = Flag.MMAP | Flag.MMAP2 | Flag.COMM | Flag.COMM_EXEC | Flag.TASK
#: What not every kernel has, or not every user may; the last is given up first. BUILD_ID is not
#: among them: while one event asks for build ids, Linux (6.18) marks the MMAP2 records of all others
#: as if they had one, and perf 6.1 dies of that (perf_event_mmap_output does not take
#: PERF_RECORD_MISC_MMAP_BUILD_ID back).
_ALSO = (Flag.KSYMBOL | Flag.BPF_EVENT, Flag.NAMESPACES)


def kind_for(kinds: Sequence[messages.Kind]) -> messages.Kind | None:
    """How the sideband of a recording with these events is opened; None: records without a time
    could not be put beside theirs.
    """
    first = Attr.unpack(kinds[0].attr)
    if not first.sample_type & Sample.TIME or not first.flags & Flag.SAMPLE_ID_ALL:
        return None
    flags = _TELLS | Flag.SAMPLE_ID_ALL | Flag.WRITE_BACKWARD | Flag.WATERMARK
    flags |= Flag.EXCLUDE_KERNEL | Flag.EXCLUDE_HV
    for more in _ALSO:
        flags |= more
    attr = Attr(
        type=Type.SOFTWARE,
        config=Software.DUMMY,
        sample_type=first.sample_type & _alike(first),
        sample_period=1,
        flags=flags | (first.flags & (Flag.USE_CLOCKID | Flag.INHERIT)),
        clockid=first.clockid,
        wakeup_events=WATERMARK,
    )
    return messages.Kind(NAME, NAME, attr.pack())


def _alike(first: Attr) -> Sample:
    """The fields of samples that a sideband has as well, though it has no samples: those of other
    records, and where ID lies behind some words, these. Readers look for it in one place.
    """
    fields = bits(SAMPLE_ID_WORDS)
    if first.sample_type & Sample.IDENTIFIER or not first.sample_type & Sample.ID:
        return fields
    return fields | bits(SAMPLE_WORDS[: SAMPLE_WORDS.index(Sample.ID)])


def described(told: messages.KindInSnapshot) -> list[EventDesc]:
    """The sideband as an event of a file; none, where the file's only event has no ids and the
    records look like its own.
    """
    attr = Attr.unpack(told.kind.attr)
    if not attr.sample_type & (Sample.IDENTIFIER | Sample.ID):
        return []
    return [EventDesc(told.kind.name, attr, told.kernel_ids, None)]


def open_sideband(
    kind: messages.Kind, target: messages.Target, cpus: Sequence[int]
) -> tuple[messages.Kind, list[int], list[OwnedFd]]:
    """(kind as it was opened, the CPU of each fd, the fds), enabled: nothing of this is a sample.

    Raises:
        OSError: the kernel said no.
    """
    attr = Attr.unpack(kind.attr)
    on: list[int] = []
    fds: list[OwnedFd] = []
    try:
        with opening.tasks(target) as (tasks, flags):
            for task in tasks:
                for cpu in cpus:
                    attr, fd = _open(attr, task, cpu, flags, bool(fds))
                    fds.append(fd)
                    on.append(cpu)
    except BaseException:
        for fd in fds:
            fd.close()
        raise
    return messages.Kind(NAME, NAME, attr.pack()), on, fds


def _open(attr: Attr, task: int, cpu: int, flags: OpenFlag, settled: bool) -> tuple[Attr, OwnedFd]:
    for less in (Flag(0), *reversed(_ALSO)):
        attr = attr.with_flags(off=less)
        try:
            return attr, perf_event_open(attr, task, cpu, -1, flags)
        except OSError as error:
            refused = error.errno in (errno.EINVAL, errno.EACCES, errno.EPERM)
            if settled or not refused or less == _ALSO[0]:
                raise
    raise AssertionError("the last of them raises")


def scan(kind: messages.Kind, target: messages.Target) -> OwnedFd:
    """A file in memory with records of what runs now."""
    trailer = 8 * word_count(Attr.unpack(kind.attr).sample_type, SAMPLE_ID_WORDS)
    pids = procfs.pids() if target.pids is None else target.pids
    if not are_in_proc(target):
        pids = []
    found = (procfs.process(pid) for pid in pids)
    data = b"".join(b"".join(process(one, trailer)) for one in found if one is not None)
    return sealed("perfkeep-scanned", data)


def add(
    name: str,
    kinds: Sequence[messages.Kind],
    target: messages.Target,
    cpus: Sequence[int],
    *,
    system: bool = False,
) -> list[str]:
    """Have a recording that has begun know of processes. Gives notes on why it cannot."""
    kind = kind_for(kinds)
    unnamed = "processes that end are not named in snapshots"

    def ask(method: str, parameters: msgspec.Struct, fds: list[OwnedFd]) -> None:
        call(method, parameters, fds, system=system)

    if kind is None:
        return [f"{unnamed}: its events do not say when they were"]
    if not are_of_here(target):
        return [
            f"{unnamed}: its samples have pids of another PID namespace than this process is in"
        ]
    error = _add(ask, name, kind, target, cpus)
    return [Note.of(error, unnamed)] if error else []


def add_again(broker: Connection, missing: messages.Missing) -> str:
    """Do the same for what an opener is to open. Gives the reason why it cannot."""
    if missing.sideband is None or not missing.sideband_cpus:
        return ""

    def ask(method: str, parameters: msgspec.Struct, fds: list[OwnedFd]) -> None:
        broker.stage(fds)
        broker.call(method, parameters, messages.Nothing)

    error = _add(ask, missing.name, missing.sideband, missing.target, missing.sideband_cpus)
    return (error.strerror or str(error)) if error else ""


def _add(
    ask: Callable[[str, msgspec.Struct, list[OwnedFd]], None],
    name: str,
    kind: messages.Kind,
    target: messages.Target,
    cpus: Sequence[int],
) -> OSError | None:
    fds: list[OwnedFd] = []
    try:
        kind, on, fds = open_sideband(kind, target, cpus)
        ask("AddSideband", messages.AddSideband(name, kind, on), fds)
        with scan(kind, target) as file:
            ask("AddProcesses", messages.Named(name), [file])
    except OSError as error:
        return error
    finally:
        for fd in fds:
            fd.close()
    return None
