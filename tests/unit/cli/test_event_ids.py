"""Records belong to the event whose id they carry, wherever its layout puts the id."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Flag, Sample, Software
from perfkeep.abi.records import SAMPLE_ID_WORDS, SAMPLE_WORDS
from perfkeep.records.writers import Writers
from perfkeep.testing.assembler import Assembler, file_event, perf_file
from support.commands import Cli, cli

cli = pytest.fixture(cli)

WORDS = Sample.IP | Sample.TID | Sample.TIME | Sample.ID | Sample.CPU | Sample.PERIOD
WHICH = [Sample.ID, Sample.IDENTIFIER, Sample.ID | Sample.IDENTIFIER]


def written(path: Path, sample_type: Sample) -> str:
    """Write a file like `perf record -a`: a clock, and a dummy whose ring has the task records."""
    clock, dummy = (Assembler(id=id, sample_type=sample_type) for id in (10, 11))
    events = [
        file_event("cpu-clock", clock.attr, 10),
        file_event("dummy:HG", replace(dummy.attr, config=Software.DUMMY), 11),
    ]
    records = [
        # The rings of two CPUs, one behind the other: the exec lies before the fork.
        dummy.comm(200, 200, b"worker", 2000, exec=True),
        clock.sample(3000, ip=0x1000, pid=200, tid=200),
        replace(clock, id=0).comm(100, 100, b"shell"),
        dummy.fork(200, 200, (100, 100), 1000),
        clock.sample(4000, ip=0x1000, pid=200, tid=200),
    ]
    path.write_bytes(perf_file(events, records))
    return str(path)


@pytest.mark.parametrize("which", WHICH, ids=["ID", "IDENTIFIER", "both"])
def test_a_process_has_the_name_of_its_last_exec(cli: Cli, tmp_path: Path, which: Sample) -> None:
    path = written(tmp_path / "exec.data", WORDS & ~Sample.ID | which)
    lines = cli("script", path).out.splitlines()
    assert [line.split()[0] for line in lines] == ["worker"] * 2
    for arguments in ([], ["--by", "comm"]):
        table = cli("report", path, *arguments).out.splitlines()
        assert len(table[-1:]) == 1 and "worker" in table[-1] and "2" in table[-1]
    assert "worker;" in cli("export", path, "--to", "folded", "-o", "-").out


@pytest.mark.parametrize("which", WHICH, ids=["ID", "IDENTIFIER", "both"])
@pytest.mark.parametrize("more", [Sample(0), Sample.ADDR | Sample.STREAM_ID | Sample.CPU])
def test_samples_are_counted_for_the_event_whose_id_they_have(
    cli: Cli, tmp_path: Path, which: Sample, more: Sample
) -> None:
    kinds = Sample.IP | Sample.TID | Sample.TIME | Sample.PERIOD | which | more
    one, two = Assembler(id=10, sample_type=kinds), Assembler(id=20, sample_type=kinds)
    events = [
        file_event("cpu-clock", one.attr, 10),
        file_event("task-clock", replace(two.attr, config=Software.TASK_CLOCK), 20),
    ]
    records = [
        one.comm(200, 200, b"worker"),
        one.sample(3000, ip=0x1000, pid=200, tid=200),
        two.sample(4000, ip=0x1000, pid=200, tid=200),
    ]
    path = tmp_path / "two.data"
    path.write_bytes(perf_file(events, records))
    row = cli("report", str(path)).out.splitlines()[1].split()
    assert row == ["100.0%", "worker", "200", "1", "1"]
    query = "SELECT (SELECT count(*) FROM cpu_clock), (SELECT count(*) FROM task_clock)"
    assert cli("sql", str(path), query, "--csv").out.splitlines()[1] == "1,1"


@given(
    st.lists(st.sampled_from(sorted({*SAMPLE_WORDS, *SAMPLE_ID_WORDS})), max_size=9),
    st.sampled_from(WHICH),
    st.integers(1, 2**64 - 1),
    st.booleans(),
)
def test_the_writer_of_any_record_is_found(
    fields: list[Sample], which: Sample, id: int, trailers: bool
) -> None:
    kinds = which
    for field in fields:
        kinds |= field
    first, second = Assembler(id=id, sample_type=kinds), Assembler(id=id - 1, sample_type=kinds)
    attr = first.attr if trailers else first.attr.with_flags(off=Flag.SAMPLE_ID_ALL)
    writers = Writers([(attr, [id]), (attr, [id - 1] if id > 1 else [7])])
    assert writers.of(first.sample(5, pid=3, tid=3)) == 0
    stranger = replace(first, id=id ^ 1 << 63)
    assert writers.of(stranger.sample(5)) is None
    if trailers and id > 1:
        assert writers.of(second.sample(5)) == writers.of(second.comm(3, 3, b"x", 5)) == 1
        assert writers.of(replace(first, id=0).comm(3, 3, b"x")) == 0
