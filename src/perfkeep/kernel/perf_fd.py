"""What can be asked of a perf fd, whoever opened it: its id, its counts, whether it lives.

Standard library only, and no ctypes: whoever holds a perf fd may import this at little cost.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
from typing import NamedTuple

from perfkeep.abi.perf_event import Ioctl, ReadFormat
from perfkeep.errors import BrokerError


class Reading(NamedTuple):
    """What read(2) of an event gives; a field that its read_format lacks is 0.

    `value` is raw: when time_running_ns < time_enabled_ns the event was multiplexed.
    """

    value: int
    time_enabled_ns: int
    time_running_ns: int
    kernel_id: int
    lost: int


def event_id(fd: int) -> int:
    """PERF_EVENT_IOC_ID: the kernel's own id of an event, the only way to tell two perf fds
    apart (they share st_dev and st_ino).

    Raises:
        OSError: ENOTTY or EINVAL when the fd is no perf event.
    """
    return int(struct.unpack("@Q", fcntl.ioctl(fd, Ioctl.ID, bytes(8)))[0])


def check(fd: int) -> int:
    """The kernel's id, once it is certain that the fd is a perf event.

    The link is looked at first: what an ioctl does to some other kind of file is anyone's guess.

    Raises:
        BrokerError: EINVAL: it is something else.
    """
    what = os.readlink(f"/proc/self/fd/{fd}")
    if what != "anon_inode:[perf_event]":
        raise BrokerError(errno.EINVAL, f"this fd is no perf event but {what}")
    return event_id(fd)


def set_filter(fd: int, expression: str) -> None:
    """PERF_EVENT_IOC_SET_FILTER: keep only the samples of a tracepoint that match.

    Raises:
        OSError: EINVAL when the kernel's filter parser does not take it.
    """
    # fcntl.ioctl passes a bytes object as a pointer to a copy of it.
    fcntl.ioctl(fd, Ioctl.SET_FILTER, expression.encode() + b"\0")


def hung_up(fd: int) -> bool:
    """POLLHUP: the event has no ring, or its task and all that it forked have exited."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return any(bits & select.POLLHUP for _, bits in poll.poll(0))


def read(fd: int, read_format: ReadFormat) -> Reading:
    """read(2) of one event; of a group's leader (GROUP) the leader's own counts.

    Raises:
        OSError: ENOSPC when the kernel's answer does not fit: not this event's read_format.
    """
    words = memoryview(os.read(fd, 16 << 10)).cast("Q").tolist()
    if not words:
        # An event whose group or task died in an error state reads as end of file.
        return Reading(0, 0, 0, 0, 0)
    return decode(words, read_format)


def lost(fd: int, read_format: ReadFormat, kernel_id: int) -> int | None:
    """Records of an event that did not fit into its ring; None: the event does not count them.

    Args:
        read_format: as the event was opened.
        kernel_id: of the event; a read of any member of a group gives the whole group.

    Raises:
        OSError: as `read`.
    """
    if not read_format & ReadFormat.LOST:
        return None
    if not read_format & ReadFormat.GROUP:
        return read(fd, read_format).lost
    words = memoryview(os.read(fd, 16 << 10)).cast("Q").tolist()
    times = ReadFormat.TOTAL_TIME_ENABLED | ReadFormat.TOTAL_TIME_RUNNING
    if not words:
        return 0
    begin, has_id = 1 + int(read_format & times).bit_count(), bool(read_format & ReadFormat.ID)
    for at in range(begin, len(words) - 1 - has_id, 2 + has_id):
        if words[0] == 1 or (has_id and words[at + 1] == kernel_id):
            return int(words[at + 1 + has_id])
    return None


def decode(words: list[int], read_format: ReadFormat) -> Reading:
    """The layout of perf_event_open(2), "Reading results". What is not there, as whoever said
    that this is the event's read_format was wrong, is 0.
    """
    at = iter(words)
    group = read_format & ReadFormat.GROUP
    value = next(at, 0)  # with GROUP this is the number of events; the values come last
    enabled = next(at, 0) if read_format & ReadFormat.TOTAL_TIME_ENABLED else 0
    running = next(at, 0) if read_format & ReadFormat.TOTAL_TIME_RUNNING else 0
    if group:
        value = next(at, 0)
    kernel_id = next(at, 0) if read_format & ReadFormat.ID else 0
    lost = next(at, 0) if read_format & ReadFormat.LOST else 0
    return Reading(value, enabled, running, kernel_id, lost)
