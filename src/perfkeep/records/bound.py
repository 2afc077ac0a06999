"""How long a record can be: bounds what was being written while a ring was copied. Pure."""

from __future__ import annotations

import re

from perfkeep.abi.perf_event import Attr, Flag, ReadFormat, Sample
from perfkeep.abi.records import SAMPLE_WORDS, beyond, bits

#: Task, softirq, hard irq, NMI: so many records may be half-written at one moment.
CONTEXTS = 4
# perf_event_header.size has 16 bits.
_ANYTHING = 1 << 16
# PERF_MAX_TRACE_SIZE: the kernel drops tracepoint records beyond it.
_MOST_RAW = 8192
# Whoever starts a recording says what its formats are: nothing in them may take long.
_FIELD = re.compile(r"offset:(\d{1,6});\s{0,8}size:(\d{1,6});")
#: Fields whose size is known here: a word each, or bounded below. What else there is may be as long
#: as a record can be.
_BOUNDED = bits(
    (
        *SAMPLE_WORDS, Sample.READ, Sample.CALLCHAIN, Sample.RAW, Sample.WEIGHT,
        Sample.WEIGHT_STRUCT, Sample.DATA_SRC, Sample.TRANSACTION, Sample.PHYS_ADDR, Sample.CGROUP,
        Sample.DATA_PAGE_SIZE, Sample.CODE_PAGE_SIZE,
    )
)  # fmt: skip
_READ_KNOWN = (
    ReadFormat.TOTAL_TIME_ENABLED | ReadFormat.TOTAL_TIME_RUNNING | ReadFormat.ID
    | ReadFormat.LOST | ReadFormat.GROUP
)  # fmt: skip
#: The kernel refuses larger groups (perf_event_validate_size).
_MOST_GROUP = 16 << 10
# Side-band records that end with a path or with code; perfkeep asks for none, `unclaim` may.
_WITH_PATHS = Flag.MMAP | Flag.MMAP_DATA | Flag.MMAP2 | Flag.CGROUP | Flag.KSYMBOL | Flag.TEXT_POKE


def longest(attr: Attr, format: str, frames: int) -> int:
    """No record of this event has more bytes.

    Who reads a copy and who takes the kernel's addresses out of it must agree on this: what is
    blank because it may be torn must be what readers cut off.

    Args:
        format: what tracefs says of a tracepoint's fields; "" for other events.
        frames: the most that a call chain has, see kernel.sysctl.most_frames.
    """
    kinds = attr.sample_type
    if beyond(kinds, _BOUNDED) or beyond(attr.read_format, _READ_KNOWN):
        return _ANYTHING
    size = 256  # header and every field of fixed size, READ of one event among them
    if kinds & Sample.READ and attr.read_format & ReadFormat.GROUP:
        size += _MOST_GROUP
    if kinds & Sample.CALLCHAIN:
        size += 8 * frames
    if kinds & Sample.RAW:
        # Known, unless one of the fields has a length of its own.
        ends = [int(at) + int(size) for at, size in _FIELD.findall(format)]
        size += max(ends) if ends and "_loc " not in format else _MOST_RAW
    return max(size, 4096 + 256) if attr.flags & _WITH_PATHS else size


def spoilt_bytes(length: int, overwritten: int, longest: int, unread: int | None) -> int:
    """The bytes at a copy's oldest end that were, or were being, overwritten while it was made.

    Args:
        length: of the copy.
        overwritten: how far data_head moved meanwhile, less what was free in the ring before.
        longest: no record has more bytes.
        unread: so many of the newest bytes cannot change, as the ring does not overwrite them; None:
            it does.
    """
    spoilt = max(0, overwritten + CONTEXTS * longest)
    return min(spoilt, length - min(unread or 0, length))
