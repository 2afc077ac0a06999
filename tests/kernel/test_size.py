"""`perfkeep size` measures real events, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import perfkeep
from perfkeep.cli.main import main
from perfkeep.testing.load import heartbeat
from perfkeep.testing.requirements import perf_events, requires, tracefs
from support.caller import Callers
from support.instance import Running

pytestmark = requires(perf_events, tracefs)


def test_it_finds_how_much_a_cpu_records_and_ends_again(
    running: Running,
    tracefs_mounted: Path,
    caller: Callers,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["size", "-e", "syscalls:sys_enter_getpriority", "--for", "500ms", "--json"]
    with caller(0).calling(every_us=1000):
        assert main([*arguments, "--last", "60s"]) == 0
    found = json.loads(capsys.readouterr().out)
    busy = next(one for one in found["cpus"] if one["cpu"] == 0)
    # One a millisecond at the most, and a machine with much to do gives fewer.
    assert 50 < busy["records_per_s"] < 1500
    assert 16 < busy["bytes_per_s"] / busy["records_per_s"] < 200
    assert found["ring_bytes"] >= 60 * busy["bytes_per_s"]
    assert perfkeep.recordings() == []


def test_more_than_a_ring_can_hold_is_told(
    running: Running, tracefs_mounted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["size", "-e", "sched:sched_switch", "-C", "0", "--for", "200ms"]
    with heartbeat(0):  # an idle CPU records nothing, and that fits into any ring
        assert main([*arguments, "--last", "30s"]) == 0
    out = capsys.readouterr().out
    assert "RECORDS/S" in out and "30s of this, and a quarter more: --ring " in out
    with heartbeat(0):
        assert main([*arguments, "--last", "365d"]) == 1
    assert "limit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [([], "no event was named"), (["-e", "cpu-clock", "--for", "2d"], "100ms to 1h"),
     (["-e", "no-such-event"], "no-such-event")],
)  # fmt: skip
def test_what_makes_no_sense_is_told_and_nothing_is_started(
    running: Running, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main(["size", *arguments]) == 2
    assert says in capsys.readouterr().err
    assert perfkeep.recordings() == []
