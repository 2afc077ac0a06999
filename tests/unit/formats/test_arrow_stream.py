"""perfkeep.formats.arrow_stream: batches that are made when somebody asks."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence

import pytest

pytest.importorskip("numpy")
pytest.importorskip("nanoarrow")

import nanoarrow as na
import numpy as np

from perfkeep.errors import DataError
from perfkeep.formats import arrow_stream
from perfkeep.formats.arrow import ArrowTable
from perfkeep.records.cells import Column


def columns(*numbers: int) -> list[Column]:
    return [Column("n", "int", np.array(numbers, "i8"))]


class Batches:
    """Says what was asked of it."""

    def __init__(self, fails: bool = False) -> None:
        self.made, self.closed, self.fails = 0, 0, fails

    def __call__(self) -> Iterator[Sequence[Column]]:
        try:
            for at in range(4):
                self.made += 1
                yield columns(at, at)
            if self.fails:
                raise DataError("rubbish", 7)
        finally:
            self.closed += 1

    def table(self) -> ArrowTable:
        return ArrowTable(columns(), self)


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    gc.collect()
    assert not arrow_stream._live and not arrow_stream._structs


def test_a_batch_is_made_when_it_is_asked_for() -> None:
    batches = Batches()
    stream = na.c_array_stream(batches.table())
    assert batches.made == 0
    assert stream.get_next().length == 2
    assert batches.made == 1
    assert [one.length for one in stream] == [2] * 3
    assert (batches.made, batches.closed) == (4, 1)


def test_who_stops_early_keeps_nothing_alive() -> None:
    batches = Batches()
    stream = na.c_array_stream(batches.table())
    first = stream.get_next()
    stream.release()
    assert (batches.made, batches.closed) == (1, 1)
    assert na.Array(first).to_pylist() == [{"n": 0}, {"n": 0}]


def test_a_stream_that_nobody_takes_goes_with_its_capsule() -> None:
    batches = Batches()
    capsule = batches.table().__arrow_c_stream__()
    assert arrow_stream._live
    del capsule
    assert not arrow_stream._live and not arrow_stream._structs


def test_what_cannot_be_read_is_told_by_the_stream() -> None:
    stream = na.c_array_stream(Batches(fails=True).table())
    with pytest.raises(Exception, match="rubbish"):
        list(stream)


def test_each_taker_gets_all_rows() -> None:
    table = Batches().table()
    expected = [{"n": at} for at in range(4) for _ in range(2)]
    assert table.to_pylist() == table.to_pylist() == expected
    assert (len(table), table.num_rows) == (8, 8)
    assert repr(table) == "ArrowTable(of n)"


@pytest.mark.parametrize("library", ["duckdb", "polars"])
def test_programs_take_all_batches(library: str) -> None:
    table, module = Batches().table(), pytest.importorskip(library)
    if library == "duckdb":
        with module.connect() as connection:
            connection.register("t", table)
            found = connection.sql("SELECT sum(n), count(*) FROM t").fetchall()
    else:
        frame = module.DataFrame(table)
        found = [(frame["n"].sum(), len(frame))]
    assert found == [(12, 8)]
