"""A file, a snapshot, and a recording that is followed name the same kernel frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

import perfkeep
from perfkeep.analysis.data import Data
from perfkeep.analysis.stacks import stacks
from perfkeep.client.following import Follower
from perfkeep.client.look import look
from perfkeep.testing.requirements import perf_events, requires, root, tracefs
from support.caller import Callers

pytestmark = [
    requires(perf_events, tracefs, root),
    pytest.mark.usefixtures("running", "tracefs_mounted"),
]


def kernel_frames(data: Data, pid: int) -> set[str]:
    """Names in the kernel part of the caller's stacks."""
    found = stacks(data, "sched:sched_switch", ["pid"])
    return {
        found.functions[frame].name
        for (owner,), chain in found.samples
        if owner == pid
        for frame in chain
        if found.functions[frame].file.startswith("[kernel")
    }


@pytest.mark.parametrize("way", ["file", "look", "saved", "in memory", "live", "followed"])
def test_every_way_to_a_data_set_names_the_functions_of_the_kernel(
    caller: Callers, tmp_path: Path, way: str
) -> None:
    calling = caller(0)
    recording = perfkeep.start("flight", ["sched:sched_switch"], ring="1M", call_chains=True)
    calling.ask("call", 3)
    path = str(tmp_path / "x.data")

    def in_memory() -> Data:
        with recording.snapshot() as snapshot:
            return snapshot.tables()

    follower = Follower("flight")
    ways: dict[str, Callable[[], Data | None]] = {
        "file": lambda: perfkeep.read(recording.snapshot(path).path or ""),
        "look": lambda: look(recording.snapshot(path).path or ""),
        "saved": lambda: recording.snapshot(path).tables(),
        "in memory": in_memory,
        "live": lambda: look("flight"),
        "followed": follower.poll,
    }
    with follower:
        data = ways[way]()
        assert data is not None
        names = kernel_frames(data, calling.pid)
    assert names and not [name for name in names if name.startswith("0x")]
