"""Rows are in the order of time, in SQL, exports and data frames; files have them ring by ring."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Attr, Flag, Sample
from perfkeep.analysis.data import Data
from perfkeep.client.data_set import data_set, read
from perfkeep.formats.perf_data import parse
from perfkeep.testing.assembler import Assembler, file_event, perf_file
from support.commands import Cli, cli

cli = pytest.fixture(cli)

FIELDS = Sample.IP | Sample.TID | Sample.TIME
ATTR = Attr(sample_period=1, sample_type=FIELDS, flags=Flag.SAMPLE_ID_ALL)
#: Two flight rings, one after the other.
TIMES = [*range(40_001, 0, -2), *range(40_000, 0, -2)]


def content(times: list[int], cut: int | None = None) -> bytes:
    event = Assembler(sample_type=FIELDS)
    records = [event.sample(time, ip=number) for number, time in enumerate(times)]
    if cut is not None:  # a record that ends before its time
        records.insert(cut, b"\x09\0\0\0\0\0\x10\0" + bytes(8))
    return perf_file([file_event("cycles", ATTR)], records)


@pytest.fixture
def rings(tmp_path: Path) -> Path:
    path = tmp_path / "rings.data"
    path.write_bytes(content(TIMES))
    return path


def test_sql_and_csv_give_rows_in_the_order_of_time(cli: Cli, rings: Path, tmp_path: Path) -> None:
    for query in ("SELECT time FROM cycles", "SELECT time, comm FROM cycles WHERE ip >= 0"):
        rows = list(csv.DictReader(io.StringIO(cli("sql", rings, query, "--csv").out)))
        assert [int(row["time"]) for row in rows] == sorted(TIMES)
    out = tmp_path / "x.csv"
    assert cli("export", rings, "--to", "csv", "-o", out).code == 0
    times = [int(row["time"]) for row in csv.DictReader(io.StringIO(out.read_text()))]
    assert times == sorted(TIMES)


@pytest.mark.parametrize("library", ["polars", "nanoarrow"])
def test_frames_have_rows_in_the_order_of_time(rings: Path, library: str) -> None:
    module = pytest.importorskip(library)
    data = read(str(rings))
    if library == "nanoarrow":
        times = module.ArrayStream(data.to_arrow("cycles")).read_all().child(0).to_pylist()
    else:
        times = data.to_polars("cycles")["time"].to_list()
    assert times == sorted(TIMES)


def times_of(data: Data) -> tuple[list[int], list[int]]:
    table = data.table("cycles")
    time, number = table.get("time"), table.get("ip")
    assert time is not None and number is not None and table.times is not None
    assert table.times.tolist() == time.values.tolist()
    return time.values.tolist(), number.values.tolist()


@given(st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 3), max_size=50), st.data())
def test_samples_of_one_time_stay_as_they_lie_and_damage_moves_none(
    times: list[int], drawn: st.DataObject
) -> None:
    cut = drawn.draw(st.none() | st.integers(0, len(times)))
    expected = sorted(range(len(times)), key=lambda number: times[number])
    found = times_of(data_set(parse(memoryview(content(times, cut)))))
    assert found == ([times[number] for number in expected], expected)
