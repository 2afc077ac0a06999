"""Small files for tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from perfkeep.formats.perf_data import EventDesc, RingCopy, Window, write_snapshot
from perfkeep.kernel.procfs import Host
from perfkeep.testing.assembler import Assembler, Ring

HOST = Host("here", "6.18.0", "x86_64", 2, 4, "a CPU", "X,1", 1024, 0, b"", [], 5, 6, [])
#: In a call chain: what follows is of the process, PERF_CONTEXT_USER.
MARK = 2**64 - 512


def snapshot_of(
    path: Path, event: Assembler, samples: Iterable[bytes], name: str = "cpu-clock"
) -> str:
    """A snapshot of one ring of 8 KiB in which these samples are; gives the file's name."""
    ring = Ring(8192)
    for one in samples:
        ring.write(one)
    data = ring.linear()
    copy = RingCopy(0, memoryview(data), ring.data_head, ring.data_head, "backward", 8192, 64)
    with open(path, "wb") as out:
        desc = EventDesc(name, event.attr, {0: [7]}, None)
        write_snapshot(out, [desc], [copy], HOST, Window(), [])
    return str(path)
