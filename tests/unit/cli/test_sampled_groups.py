"""A sample of a group's leader is one of every member whose count has grown, as in stock perf."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Flag, ReadFormat, Sample, Software
from perfkeep.records.groups import parts
from perfkeep.records.writers import Writers
from perfkeep.testing.assembler import Assembler, file_event, perf_file
from support.commands import Cli, cli

cli = pytest.fixture(cli)

KINDS = Sample.IP | Sample.TID | Sample.TIME | Sample.READ | Sample.ID | Sample.PERIOD
GROUP = ReadFormat.GROUP | ReadFormat.ID | ReadFormat.LOST
LEADER = Assembler(id=10, sample_type=KINDS)
ATTR = replace(LEADER.attr, read_format=GROUP)


def read(*counts: int) -> list[int]:
    """READ of events with the ids 10, 20 and 30: how many, then count, id and lost of each."""
    words = [len(counts)]
    for number, count in enumerate(counts, start=1):
        words += [count, 10 * number, 0]
    return words


@pytest.fixture
def file(tmp_path: Path) -> str:
    events = [
        file_event("cpu-clock", ATTR, 10),
        file_event("page-faults", replace(ATTR, config=Software.PAGE_FAULTS), 20),
        file_event("context-switches", replace(ATTR, config=Software.CONTEXT_SWITCHES), 30),
    ]
    records = [
        LEADER.comm(200, 200, b"worker"),
        LEADER.sample(1000, pid=200, tid=200, ip=0x1000, period=99, read=read(100, 5, 0)),
        # As in a ring that is written backward: what came later lies before.
        LEADER.sample(3000, pid=200, tid=200, ip=0x3000, period=99, read=read(390, 9, 2)),
        LEADER.sample(2000, pid=200, tid=200, ip=0x2000, period=99, read=read(250, 5, 0)),
    ]
    path = tmp_path / "group.data"
    path.write_bytes(perf_file(events, records))
    return str(path)


def test_script_prints_a_sample_for_each_member_with_its_difference(cli: Cli, file: str) -> None:
    lines = cli("script", file, "-F", "time,event,period,ip", "--ns").out.splitlines()
    assert [line.split() for line in lines] == [
        ["0.000001000:", "100", "cpu-clock:", "1000"],
        ["0.000001000:", "5", "page-faults:", "1000"],
        ["0.000002000:", "150", "cpu-clock:", "2000"],
        ["0.000003000:", "140", "cpu-clock:", "3000"],
        ["0.000003000:", "4", "page-faults:", "3000"],
        ["0.000003000:", "2", "context-switches:", "3000"],
    ]


def test_report_and_sql_count_them_as_script_does(cli: Cli, file: str) -> None:
    row = cli("report", file).out.splitlines()[1].split()
    assert row == ["100.0%", "worker", "200", "3", "2", "1"]
    by = cli("report", file, "--by", "comm", "-e", "page-faults").out
    assert by.startswith("2 samples of page-faults, weighed by period: 9 in all")
    rows = cli("sql", file, "SELECT id, period FROM page_faults ORDER BY time", "--csv").out
    assert rows.splitlines() == ["id,period", "20,5", "20,4"]


def test_an_inherited_event_counts_in_each_task_from_0(cli: Cli, tmp_path: Path) -> None:
    attr = ATTR.with_flags(Flag.INHERIT)
    records = [
        LEADER.sample(1000 + tid, pid=200, tid=tid, ip=0x1000, read=read(100)) for tid in (200, 201)
    ]
    path = tmp_path / "inherited.data"
    path.write_bytes(perf_file([file_event("cpu-clock", attr, 10)], records))
    lines = cli("script", str(path), "-F", "tid,period").out.splitlines()
    assert [line.split() for line in lines] == [["200", "100"], ["201", "100"]]


def test_a_count_that_was_reset_begins_at_0(cli: Cli, tmp_path: Path) -> None:
    records = [
        LEADER.sample(time, pid=200, tid=200, ip=0x1000, read=read(count))
        for time, count in ((1, 100), (2, 30), (3, 45))
    ]
    path = tmp_path / "reset.data"
    path.write_bytes(perf_file([file_event("cpu-clock", ATTR, 10)], records))
    assert cli("script", str(path), "-F", "period").out.split() == ["100", "30", "15"]


def test_counts_that_do_not_fit_their_record_are_left_out_and_counted(
    cli: Cli, tmp_path: Path
) -> None:
    good, bad = (
        LEADER.sample(time, pid=200, tid=200, ip=0x1000, read=words)
        for time, words in ((1000, read(100)), (2000, [2**60, 1, 10, 0]))
    )
    path = tmp_path / "bad.data"
    path.write_bytes(perf_file([file_event("cpu-clock", ATTR, 10)], [good, bad]))
    ran = cli("script", str(path))
    assert len(ran.out.splitlines()) == 1
    assert "1 samples do not fit their records" in ran.err


def test_a_single_event_with_its_count_has_the_difference(cli: Cli, tmp_path: Path) -> None:
    attr = replace(ATTR, read_format=ReadFormat.ID | ReadFormat.TOTAL_TIME_ENABLED)
    records = [
        LEADER.sample(time, pid=200, tid=200, ip=0x1000, read=[count, 5, 10])
        for time, count in ((1, 100), (2, 100), (3, 130))
    ]
    path = tmp_path / "single.data"
    path.write_bytes(perf_file([file_event("cpu-clock", attr, 10)], records))
    lines = cli("script", str(path), "-F", "period").out.split()
    assert lines == ["100", "30"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))))
def test_the_periods_of_each_event_add_up_to_its_last_count(
    steps: list[tuple[int, int, int]],
) -> None:
    totals, samples = [0, 0, 0], []
    for time, step in enumerate(steps, start=1):
        totals = [total + more for total, more in zip(totals, step, strict=True)]
        samples.append((time, memoryview(LEADER.sample(time, read=read(*totals)))))
    writers = Writers((ATTR, [id]) for id in (10, 20, 30))
    known, malformed = parts(samples, writers)
    periods = [sum(part.period for part in known if part.event == event) for event in range(3)]
    assert periods == totals and not malformed
    assert all(part.period for part in known)
