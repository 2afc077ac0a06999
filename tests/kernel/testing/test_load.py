"""perfkeep.testing.load on a real CPU."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from perfkeep.kernel import cpus
from perfkeep.testing.load import heartbeat

LAST = max(cpus.online())


def wake_ups(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def test_the_load_goes_on_waking_up_on_the_cpu_that_was_named() -> None:
    deadline = time.monotonic() + 10
    with heartbeat(LAST) as pid:
        assert os.sched_getaffinity(pid) == {LAST}
        before = wake_ups(pid)
        while wake_ups(pid) < before + 1000:
            assert time.monotonic() < deadline, "1000 wake-ups at 50 µs take 0.1 s"


def test_the_load_has_ended_when_the_block_is_left() -> None:
    with heartbeat(LAST) as pid:
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


def test_a_load_on_a_cpu_that_does_not_exist_says_so() -> None:
    absent = max(cpus.possible()) + 1000
    with (
        pytest.raises(RuntimeError, match=f"the load on CPU {absent} did not start"),
        heartbeat(absent),
    ):
        pass
