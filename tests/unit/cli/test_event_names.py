"""Names are for people: two events of one name, or one called like a view, keep their samples apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from perfkeep.abi.perf_event import Attr, Flag, Sample, Software, Type
from perfkeep.analysis.data import Data
from perfkeep.formats.perf_data.event import EventDesc
from perfkeep.formats.perf_data.reader import PerfData
from perfkeep.testing.assembler import Assembler, file_event, perf_file
from support.commands import Cli, cli

cli = pytest.fixture(cli)

FIELDS = Sample.IDENTIFIER | Sample.IP | Sample.TID | Sample.TIME
CLOCK = Attr(
    type=Type.SOFTWARE,
    config=Software.CPU_CLOCK,
    sample_period=4000,
    sample_type=FIELDS,
    flags=Flag.SAMPLE_ID_ALL,
)
SWITCH = """name: sched_switch
format:
\tfield:int prev_pid;\toffset:0;\tsize:4;\tsigned:1;
"""


def two_clocks(path: Path, *names: str) -> Path:
    """The first event has two samples, the second one."""
    first, second = (Assembler(id=id, sample_type=FIELDS) for id in (10, 20))
    records = [first.comm(200, 200, b"worker")]
    records += [first.sample(time, ip=0x1000, pid=200, tid=200) for time in (10, 11)]
    records += [second.sample(12, ip=0x1000, pid=200, tid=200)]
    events = [
        file_event(name, replace(CLOCK, sample_period=4000 + id), id)
        for name, id in zip(names, (10, 20), strict=True)
    ]
    path.write_bytes(perf_file(events, records))
    return path


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    return two_clocks(tmp_path / "twins.data", "cpu-clock", "cpu-clock")


def test_report_counts_two_events_of_one_name_apart(cli: Cli, twins: Path) -> None:
    assert cli("report", twins).out.splitlines()[1].split() == [
        "100.0%", "worker", "200", "2", "1",
    ]  # fmt: skip


def test_each_of_two_events_of_one_name_has_a_table(cli: Cli, twins: Path) -> None:
    for table, count in (("cpu_clock", 2), ("cpu_clock_", 1)):
        query = f"SELECT count(*) AS n FROM {table}"
        assert cli("sql", twins, query, "--json").json == [{"n": count}]
        ran = cli("report", twins, "--by", "comm", "-e", table)
        assert ran.out.startswith(f"{count} samples of cpu-clock")


def test_a_name_that_several_events_have_is_ambiguous_for_one_table(cli: Cli, twins: Path) -> None:
    for words in (
        ("report", twins, "--by", "comm"), ("diff", twins, twins),
        ("export", twins, "--to", "folded", "-o", "-"), ("export", twins, "--to", "csv", "-o", "-"),
    ):  # fmt: skip
        ran = cli(*words, "-e", "cpu-clock")
        assert ran.code == 2
        assert "several events are called 'cpu-clock'" in ran.err
        assert "cpu_clock, cpu_clock_" in ran.err


def test_script_shows_all_events_of_a_name(cli: Cli, twins: Path) -> None:
    assert len(cli("script", twins, "-e", "cpu-clock").out.splitlines()) == 3
    assert len(cli("script", twins, "-e", "cpu_clock_").out.splitlines()) == 1


def test_a_perfetto_trace_has_the_samples_of_both(cli: Cli, twins: Path, tmp_path: Path) -> None:
    sizes = []
    for table in (None, "cpu_clock", "cpu_clock_"):
        out = tmp_path / str(table)
        chosen = ("-e", table) if table else ()
        assert cli("export", twins, "--to", "perfetto", "-o", out, *chosen).code == 0
        sizes.append(out.read_bytes().count(b"\x92\x04"))  # perf_sample, field 66
    assert sizes == [3, 2, 1]


@pytest.mark.parametrize("view", ["flames", "off_cpu", "run_queue", "Syscalls"])
def test_an_event_called_like_a_view_keeps_its_samples(cli: Cli, tmp_path: Path, view: str) -> None:
    path = two_clocks(tmp_path / "x.data", view, "cpu-clock")
    query = f"SELECT count(*) AS n FROM {view}_"
    assert cli("sql", path, query, "--json").json == [{"n": 2}]
    assert len(cli("sql", path, "SELECT * FROM flames", "--json").json) == 2


def test_names_that_differ_in_case_only_are_two_tables(cli: Cli, tmp_path: Path) -> None:
    path = two_clocks(tmp_path / "x.data", "probe", "Probe")
    for table, count in (("probe", 2), ("Probe_", 1)):
        query = f"SELECT count(*) AS n FROM {table}"
        assert cli("sql", path, query, "--json").json == [{"n": count}]


@pytest.mark.parametrize("name", ["other:sched_switch", "sched:sched_switch"])
def test_views_are_made_of_what_an_event_is_and_not_of_its_name(name: str) -> None:
    tracepoint = Attr(type=Type.TRACEPOINT, sample_type=FIELDS | Sample.RAW)
    desc = EventDesc(name, tracepoint, {0: [10]}, ("other", "sched_switch", 1, SWITCH))
    data = Data(PerfData([desc], memoryview(b""), 0, {}))
    # Without the fields of the scheduler's switches there is no view, and no failure.
    assert data.connection.sql("SELECT count(*) FROM sched_switch").fetchall() == [(0,)]


def test_diff_finds_the_event_whatever_its_tables_are_called(cli: Cli, tmp_path: Path) -> None:
    before = two_clocks(tmp_path / "before.data", "cpu-clock", "x")
    after = two_clocks(tmp_path / "after.data", "cpu_clock", "cpu-clock")
    ran = cli("diff", before, after, "--by", "comm", "-e", "cpu-clock")
    assert ran.out.startswith("2 and 1 samples of cpu-clock")


@pytest.mark.parametrize(
    ("names", "times", "told"),
    [
        (["a,b"], [10], []),
        (["b", "a,b"], [10, 20], []),
        (["b,c"], [20], ["c"]),
        (["a"], [], ["a"]),
        ([":7"], [30], []),
    ],
)
def test_threads_are_chosen_by_names_that_may_have_commas(
    cli: Cli, tmp_path: Path, names: list[str], times: list[int], told: list[str]
) -> None:
    event = Assembler(id=10, sample_type=FIELDS)
    path = tmp_path / "x.data"
    records = [event.comm(5, 5, b"a,b"), event.comm(6, 6, b"b")]
    records += [event.sample(10 * n, ip=1, pid=4 + n, tid=4 + n) for n in (1, 2, 3)]
    path.write_bytes(perf_file([file_event("cpu-clock", CLOCK, 10)], records))
    options = [word for name in names for word in ("--comm", name)]
    ran = cli("script", path, *options, "--ns", "-F", "time")
    assert [int(line.split(".")[1].rstrip(": ")) for line in ran.out.splitlines()] == times
    assert ran.err == "".join(f"perfkeep: no thread is called {name!r}\n" for name in told)
