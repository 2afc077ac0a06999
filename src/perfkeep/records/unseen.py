"""Tasks that the PID namespace of a recording does not show. Pure.

To them all the kernel gives the pid 0, which is that of the idle tasks as well. So of pid 0 neither a
name nor a mapping means anything there.
"""

from __future__ import annotations

import struct

from perfkeep.abi.records import MISC_CPUMODE, MISC_CPUMODE_USER, Record

#: Their name, like that of any task without one.
NAME = ":0"
SENTENCE = (
    "it was recorded in a PID namespace of its own: tasks outside of it have the pid 0, as idle ones "
    "have, and no names or functions"
)
_HEAD = struct.Struct("=IHHI")
_IDLE = b"swapper"


def is_unseen(record: memoryview) -> bool:
    """True if a record of type COMM, FORK, MMAP or MMAP2 is of such a task."""
    if len(record) < 16:
        return False
    kind, misc, _, pid = _HEAD.unpack_from(record)
    if pid:
        return False
    if kind in (Record.MMAP, Record.MMAP2):  # a guest's kernel has pid 0, too
        return bool(misc & MISC_CPUMODE == MISC_CPUMODE_USER)
    return kind == Record.FORK or (
        kind == Record.COMM and bytes(record[16 : 16 + len(_IDLE)]) != _IDLE
    )
