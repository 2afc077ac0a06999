"""Finds out if the events of an adopted recording still count: the process that opened them may have
disabled them, as `perf record` does when it ends by SIGINT or SIGTERM.

The kernel has no call that tells. An event in a group is enabled only while the group's leader is,
so a dummy event that joins the adopted one is asked for the time for which it was enabled.
"""

from __future__ import annotations

import os
import struct

import msgspec

from perfkeep.abi.perf_event import Attr, Flag, ReadFormat, Software, Type
from perfkeep.client.event import PerfEvent, reopen
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.syscalls import perf_event_open
from perfkeep.wire.messages import RecordingInfo

_VALUE_AND_TIME = struct.Struct("=QQ")


def as_it_is(info: RecordingInfo, system: bool = False) -> RecordingInfo:
    """The same, with a problem if it is adopted and does not count though it is enabled."""
    problem = "" if info.problem else disabled_by_program(info, system)
    return msgspec.structs.replace(info, problem=problem) if problem else info


def disabled_by_program(info: RecordingInfo, system: bool = False) -> str:
    """A sentence if the process whose events were adopted has disabled them; otherwise, and where
    the caller may not find out, an empty one.
    """
    program = info.target.program
    if program is None or info.state != "running":
        return ""
    for kind in info.events:
        for cpu in kind.cpus[:1]:
            if _enabled(kind.id, cpu, system) is False:
                return f"process {program.pid} ({program.command}), which opened its events, disabled them"
    return ""


def _enabled(id: int, cpu: int, system: bool) -> bool | None:
    """True if an event counts; None if the caller cannot find out, for want of permission or because
    the event is in another's group.
    """
    try:
        with reopen(id, cpu, system=system) as event, _companion(event, cpu) as companion:
            _, time_enabled = _VALUE_AND_TIME.unpack(os.read(companion.fileno(), 16))
    except OSError:
        return None
    return bool(time_enabled)


def _companion(event: PerfEvent, cpu: int) -> OwnedFd:
    """A dummy event in the event's group, with its clock.

    Raises:
        OSError: EINVAL: the event leads no group.
    """
    attr = Attr(
        type=Type.SOFTWARE,
        config=Software.DUMMY,
        read_format=ReadFormat.TOTAL_TIME_ENABLED,
        flags=event.attr.flags & Flag.USE_CLOCKID,
        clockid=event.attr.clockid,
    )
    return perf_event_open(attr, -1, cpu, event.fileno())
