"""What tests of several rooms look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfkeep.abi.perf_event import Sample
from perfkeep.formats.perf_data import EventDesc, RingCopy, Window, read, write_snapshot
from perfkeep.kernel.procfs import Host
from perfkeep.testing.assembler import PLAIN, Assembler, Ring

HOST = Host("here", "6.18.0", "x86_64", 2, 4, "a CPU", "X,1", 1024, 0, b"", [], 5, 6, [])
MARK = 2**64 - 512


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Three samples of cpu-clock with call chains."""
    event, ring = Assembler(sample_type=PLAIN | Sample.IP | Sample.CALLCHAIN), Ring(4096)
    for time, chain in ((10, (1, 2)), (20, (1, 2)), (30, (3,))):
        ring.write(event.sample(time, ip=chain[0], callchain=(MARK, *chain)))
    data = ring.linear()
    copy = RingCopy(0, memoryview(data), ring.data_head, ring.data_head, "backward", 4096, 64)
    path = tmp_path / "x.data"
    with open(path, "wb") as out:
        desc = EventDesc("cpu-clock", event.attr, {0: [7]}, None)
        write_snapshot(out, [desc], [copy], HOST, Window(), [])
    assert len(list(read(str(path)).records())) >= 3
    return str(path)
