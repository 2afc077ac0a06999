"""Shares add up the periods of samples, in every verb and format; --samples counts samples."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from perfkeep.abi.perf_event import Attr, Flag, Hardware, Sample, Software, Type
from perfkeep.testing.assembler import Assembler, file_event, perf_file
from support.commands import Cli, cli

cli = pytest.fixture(cli)

FIELDS = Sample.IP | Sample.TID | Sample.TIME
CYCLES = Attr(
    type=Type.HARDWARE,
    config=Hardware.CPU_CYCLES,
    sample_period=4000,
    sample_type=FIELDS | Sample.PERIOD,
    flags=Flag.SAMPLE_ID_ALL | Flag.FREQ,
)


@pytest.fixture
def weighed(tmp_path: Path) -> str:
    """Five samples of start with a period of 1, five of work with 1,000,000 each."""
    event = Assembler(sample_type=CYCLES.sample_type)
    records = [event.comm(1, 1, b"start"), event.comm(2, 2, b"work")]
    records += [event.sample(10 + n, ip=0x1000, pid=1, tid=1, period=1) for n in range(5)]
    records += [event.sample(20 + n, ip=0x1000, pid=2, tid=2, period=10**6) for n in range(5)]
    path = tmp_path / "weighed.data"
    path.write_bytes(perf_file([file_event("cycles", CYCLES)], records))
    return str(path)


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()[1:]]


def test_report_by_weighs_by_period(cli: Cli, weighed: str) -> None:
    ran = cli("report", weighed, "--by", "comm")
    assert ran.out.startswith("10 samples of cycles, weighed by period: 5,000,005 in all\n")
    assert rows(ran.out)[1:] == [
        ["100.0%", "100.0%", "5", "work"],
        ["0.0%", "0.0%", "5", "start"],
    ]


def test_report_by_counts_samples_on_request(cli: Cli, weighed: str) -> None:
    ran = cli("report", weighed, "--by", "comm", "--samples")
    assert ran.out.startswith("10 samples of cycles\n")
    assert [row[:3] for row in rows(ran.out)[1:]] == [["50.0%", "50.0%", "5"]] * 2


def test_report_by_process_weighs_by_period(cli: Cli, weighed: str) -> None:
    assert rows(cli("report", weighed).out) == [
        ["100.0%", "work", "2", "5"],
        ["0.0%", "start", "1", "5"],
    ]
    assert {row[0] for row in rows(cli("report", weighed, "--samples").out)} == {"50.0%"}


def test_the_tree_weighs_by_period(cli: Cli, weighed: str) -> None:
    assert rows(cli("report", weighed, "--tree").out)[1:] == [
        ["100.0%", "0.0%", "work"],
        ["100.0%", "100.0%", "0x1000"],
    ]
    assert len(rows(cli("report", weighed, "--tree", "--samples").out)) == 5


def test_diff_weighs_by_period(cli: Cli, weighed: str) -> None:
    def shares(*options: str) -> dict[str, list[str]]:
        ran = cli("diff", weighed, weighed, "--by", "comm", *options)
        return {row[-1]: row[:2] for row in rows(ran.out)[1:]}

    assert shares() == {"work": ["100.0%", "100.0%"], "start": ["0.0%", "0.0%"]}
    assert shares("--samples") == {"work": ["50.0%", "50.0%"], "start": ["50.0%", "50.0%"]}


@pytest.mark.parametrize(
    ("options", "expected"),
    [((), {"work": 5_000_000, "start": 5}), (("--samples",), {"work": 5, "start": 5})],
)
def test_every_format_of_stacks_weighs_by_period(
    cli: Cli, weighed: str, tmp_path: Path, options: tuple[str, ...], expected: dict[str, int]
) -> None:
    def exported(form: str) -> bytes:
        out = tmp_path / form
        assert cli("export", weighed, "--to", form, "-o", out, *options).code == 0
        return out.read_bytes()

    assert exported("folded").decode() == (
        f"start;0x1000 {expected['start']}\nwork;0x1000 {expected['work']}\n"
    )
    (profile,) = json.loads(exported("speedscope"))["profiles"]
    assert sorted(profile["weights"]) == sorted(expected.values())
    threads = {one["name"]: one["samples"] for one in json.loads(exported("firefox"))["threads"]}
    assert {
        name: sum(samples["weight"] or [1] * samples["length"]) for name, samples in threads.items()
    } == expected
    page = re.search(rb'"unit":"(\w+)".*?"nodes":\[0,\d+,\d+,(\d+)', exported("flamegraph"))
    assert page is not None
    assert page[1].decode() == ("samples" if options else "cycles")
    assert int(page[2]) == sum(expected.values())


def test_a_format_without_weights_takes_no_samples_option(cli: Cli, weighed: str) -> None:
    ran = cli("export", weighed, "--to", "csv", "-o", "-", "--samples")
    assert ran.code == 2 and "csv, which has every sample with its period" in ran.err


def test_the_flames_of_sql_weigh_by_period(cli: Cli, weighed: str) -> None:
    query = "SELECT name, self, total, samples FROM flames ORDER BY id"
    rows = cli("sql", weighed, query, "--json").json
    assert [tuple(row.values()) for row in rows] == [
        ("work", 0, 5_000_000, 5), ("0x1000", 5_000_000, 5_000_000, 5),
        ("start", 0, 5, 5), ("0x1000", 5, 5, 5),
    ]  # fmt: skip


def test_the_period_of_the_attr_counts_where_samples_carry_none(cli: Cli, tmp_path: Path) -> None:
    attr = Attr(
        type=Type.SOFTWARE, config=Software.CPU_CLOCK, sample_period=1_000_000,
        sample_type=FIELDS, flags=Flag.SAMPLE_ID_ALL,
    )  # fmt: skip
    event = Assembler(sample_type=FIELDS)
    path = tmp_path / "x.data"
    records = [event.comm(200, 200, b"worker"), event.sample(10, ip=0x1000, pid=200, tid=200)]
    path.write_bytes(perf_file([file_event("cpu-clock", attr)], records * 2))
    line = (
        "          worker   200     0.000000:    1000000 cpu-clock:"
        "              1000 [unknown] ([unknown])\n"
    )
    assert cli("script", path).out == line * 2
    assert [
        json.loads(one)["fields"]["period"]
        for one in cli("script", path, "--json").out.splitlines()
    ] == [10**6] * 2
    assert cli("sql", path, "SELECT sum(period) AS ns FROM cpu_clock", "--json").json == [
        {"ns": 2_000_000}
    ]
    assert cli("report", path, "--by", "comm").out.startswith(
        "2 samples of cpu-clock, weighed by period: 2,000,000 ns in all\n"
    )


def test_without_a_known_period_samples_are_counted(cli: Cli, tmp_path: Path) -> None:
    attr = replace(CYCLES, sample_type=FIELDS)
    event = Assembler(sample_type=FIELDS)
    path = tmp_path / "x.data"
    records = [event.sample(10, ip=0x1000, pid=pid, tid=pid) for pid in (1, 1, 1, 2)]
    path.write_bytes(perf_file([file_event("cycles", attr)], records))
    assert cli("report", path, "--by", "pid").out.startswith("4 samples of cycles\n")
    # The column is that of stock perf, which shows the attr's frequency there.
    assert " 4000 cycles:" in cli("script", path).out


def test_a_sample_before_the_first_name_of_its_thread_has_none(cli: Cli, tmp_path: Path) -> None:
    attr = replace(CYCLES, sample_type=FIELDS, flags=Flag.SAMPLE_ID_ALL)
    event = Assembler(sample_type=FIELDS)
    path = tmp_path / "x.data"
    records = [
        event.sample(1, ip=0x1000, pid=200, tid=200),
        event.comm(200, 200, b"fib", 5, exec=True),
        event.sample(6, ip=0x1000, pid=200, tid=200),
    ]
    path.write_bytes(perf_file([file_event("cycles", attr)], records))
    comms = [line.split()[0] for line in cli("script", path).out.splitlines()]
    assert comms == [":200", "fib"]
