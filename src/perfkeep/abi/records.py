"""<linux/perf_event.h>: the records that a ring holds. No I/O."""

from __future__ import annotations

import enum


class Record(enum.IntEnum):
    """enum perf_event_type"""

    MMAP = 1
    LOST = 2
    COMM = 3
    EXIT = 4
    THROTTLE = 5
    UNTHROTTLE = 6
    FORK = 7
    READ = 8
    SAMPLE = 9
    MMAP2 = 10
    AUX = 11
    ITRACE_START = 12
    LOST_SAMPLES = 13
    SWITCH = 14
    SWITCH_CPU_WIDE = 15
    NAMESPACES = 16
    KSYMBOL = 17
    BPF_EVENT = 18
    CGROUP = 19
    TEXT_POKE = 20
    AUX_OUTPUT_HW_ID = 21
    CALLCHAIN_DEFERRED = 22


#: What a reader of files (not of rings) may meet beyond that: perf's own, from 64 on.
USER_TYPE_START = 64


class UserRecord(enum.IntEnum):
    """enum perf_user_event_type, those with something in them that a reader needs."""

    HEADER_ATTR = 64
    HEADER_TRACING_DATA = 66
    FINISHED_ROUND = 68
    AUXTRACE = 71
    EVENT_UPDATE = 78
    HEADER_FEATURE = 80
    COMPRESSED = 81
    COMPRESSED2 = 83


#: struct perf_event_header: u32 type, u16 misc, u16 size
HEADER_SIZE = 8

MISC_CPUMODE_KERNEL = 1
MISC_CPUMODE_USER = 2
MISC_COMM_EXEC = 1 << 13
MISC_MMAP_BUILD_ID = 1 << 14


def name_of(number: int) -> str:
    """The kernel's name of a record type, or "unknown 200"."""
    try:
        return Record(number).name
    except ValueError:
        return f"unknown {number}"
