"""What tests of several rooms look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfkeep.abi.perf_event import Sample
from perfkeep.testing.assembler import PLAIN, Assembler
from perfkeep.testing.snapshots import MARK, snapshot_of


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Three samples of cpu-clock with call chains."""
    event = Assembler(sample_type=PLAIN | Sample.IP | Sample.CALLCHAIN)
    chains = {10: (1, 2), 20: (1, 2), 30: (3,)}
    return snapshot_of(
        tmp_path / "x.data",
        event,
        [event.sample(at, ip=one[0], callchain=(MARK, *one)) for at, one in chains.items()],
    )
