"""How long a record can be: bounds what was being written while a ring was copied. Pure."""

from __future__ import annotations

import re

from perfkeep.abi.perf_event import Attr, Flag, Sample

#: Task, softirq, hard irq, NMI: so many records may be half-written at one moment.
CONTEXTS = 4
# perf_event_header.size has 16 bits.
_ANYTHING = 1 << 16
# PERF_MAX_TRACE_SIZE: the kernel drops tracepoint records beyond it.
_MOST_RAW = 8192
# Whoever starts a recording says what its formats are: nothing in them may take long.
_FIELD = re.compile(r"offset:(\d{1,6});\s{0,8}size:(\d{1,6});")
_BIG = Sample.STACK_USER | Sample.REGS_USER | Sample.REGS_INTR | Sample.AUX | Sample.BRANCH_STACK
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
    if attr.sample_type & _BIG:
        return _ANYTHING
    size = 256  # header and every field of fixed size
    if attr.sample_type & Sample.CALLCHAIN:
        size += 8 * frames
    if attr.sample_type & Sample.RAW:
        # Known, unless one of the fields has a length of its own.
        ends = [int(at) + int(size) for at, size in _FIELD.findall(format)]
        size += max(ends) if ends and "_loc " not in format else _MOST_RAW
    return max(size, 4096 + 256) if attr.flags & _WITH_PATHS else size
