"""<linux/perf_event.h>: the records that a ring holds. No I/O."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from functools import reduce
from operator import or_

from perfkeep.abi.perf_event import Sample


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
    HEADER_BUILD_ID = 67
    FINISHED_ROUND = 68
    AUXTRACE = 71
    EVENT_UPDATE = 78
    HEADER_FEATURE = 80
    COMPRESSED = 81
    COMPRESSED2 = 83


#: struct perf_event_header: u32 type, u16 misc, u16 size
HEADER_SIZE = 8

#: Of one word each and in this order, those of them that sample_type has: what a sample begins with,
#: behind its header.
SAMPLE_WORDS = (
    Sample.IDENTIFIER, Sample.IP, Sample.TID, Sample.TIME, Sample.ADDR, Sample.ID,
    Sample.STREAM_ID, Sample.CPU, Sample.PERIOD,
)  # fmt: skip
#: The same of struct sample_id, with which every other record ends under SAMPLE_ID_ALL.
SAMPLE_ID_WORDS = (
    Sample.TID, Sample.TIME, Sample.ID, Sample.STREAM_ID, Sample.CPU, Sample.IDENTIFIER,
)  # fmt: skip


def word_count(sample_type: int, fields: Iterable[int]) -> int:
    """How many of these fields there are."""
    # As plain numbers: Python takes a third of a microsecond for the & of two flags.
    sample_type = int(sample_type)
    return sum(sample_type & field != 0 for field in map(int, fields))


def sample_at(sample_type: int, field: Sample) -> int | None:
    """Offset of one of SAMPLE_WORDS in a sample; None: the event does not record it."""
    if not sample_type & field:
        return None
    before = SAMPLE_WORDS[: SAMPLE_WORDS.index(field)]
    return HEADER_SIZE + 8 * word_count(sample_type, before)


def trailer_at(sample_type: int, field: Sample) -> int | None:
    """Offset of one of SAMPLE_ID_WORDS from the end of a record: negative; None: it is not there."""
    if not sample_type & field:
        return None
    return -8 * word_count(sample_type, SAMPLE_ID_WORDS[SAMPLE_ID_WORDS.index(field) :])


def id_field(sample_type: int) -> Sample:
    """The field with the id of the event that wrote a record, if there is one."""
    return Sample.IDENTIFIER if sample_type & Sample.IDENTIFIER else Sample.ID


def sample_id_at(sample_type: int) -> int | None:
    """Offset of the event's id in a sample; None: samples carry none."""
    return sample_at(sample_type, id_field(sample_type))


def trailer_id_at(sample_type: int) -> int | None:
    """Offset of the event's id from the end of a record with a trailer; None: it carries none."""
    return trailer_at(sample_type, id_field(sample_type))


def bits(fields: Iterable[Sample]) -> Sample:
    """All of them together."""
    return reduce(or_, fields)


def beyond(flags: int, handled: int) -> int:
    """The bits of `flags` that are not among those handled, also bits that have no name.

    Python's ~ of a flag knows named bits only.
    """
    return int(flags) & ~int(handled)


#: The fields of a sample that any reader of a recording may see, but for addresses of the kernel. The
#: others hold registers, stacks, physical addresses or hardware traces, or are of a later kernel.
OPEN_FIELDS = bits(
    (
        *SAMPLE_WORDS, Sample.READ, Sample.CALLCHAIN, Sample.RAW, Sample.BRANCH_STACK,
        Sample.WEIGHT, Sample.WEIGHT_STRUCT, Sample.DATA_SRC, Sample.TRANSACTION, Sample.CGROUP,
        Sample.DATA_PAGE_SIZE, Sample.CODE_PAGE_SIZE,
    )
)  # fmt: skip

#: PERF_RECORD_MISC_CPUMODE_MASK and what it selects: where the CPU was.
MISC_CPUMODE = 7
MISC_CPUMODE_UNKNOWN = 0
MISC_CPUMODE_KERNEL = 1
MISC_CPUMODE_USER = 2
MISC_MMAP_DATA = 1 << 13
MISC_COMM_EXEC = 1 << 13
MISC_SWITCH_OUT = 1 << 13
MISC_MMAP_BUILD_ID = 1 << 14


def name_of(number: int) -> str:
    """The kernel's name of a record type, or "unknown 200"."""
    try:
        return Record(number).name
    except ValueError:
        return f"unknown {number}"
