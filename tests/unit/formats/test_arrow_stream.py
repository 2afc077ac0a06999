"""perfkeep.formats.arrow_stream: batches that are made when somebody asks."""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Iterator, Sequence

import pytest

pytest.importorskip("numpy")
pytest.importorskip("nanoarrow")

import nanoarrow as na
import numpy as np

from perfkeep.errors import DataError
from perfkeep.formats import arrow_stream
from perfkeep.formats.arrow import ArrowTable
from perfkeep.formats.arrow_array import ArrowArray, mover
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


def released(array: ArrowArray) -> None:
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(array.release)(ctypes.addressof(array))
    assert not array.release


def words(address: int, count: int) -> list[int]:
    return list((ctypes.c_int64 * count).from_address(address))


def test_what_was_taken_out_of_a_batch_lives_longer_than_the_rest() -> None:
    values, offsets = np.array([5, 6, 7], "u8"), np.array([0, 1, 3], "i8")
    batch = [
        Column("n", "int", np.array([1, 2], "i8")),
        Column("list", "ints", values, offsets),
        Column("text", "text", np.frombuffer(b"abc", "u1"), offsets),
    ]
    alive = weakref.ref(values)
    whole, taken = ArrowArray(), ArrowArray()
    table = ArrowTable.of(batch)
    mover(table._schema, batch)(batch, ctypes.addressof(whole))
    del values, table, batch[1:]
    assert (whole.length, whole.n_children, whole.n_buffers) == (2, 3, 1)
    child = ArrowArray.from_address(words(whole.children, 3)[1])
    ctypes.memmove(ctypes.addressof(taken), ctypes.addressof(child), ctypes.sizeof(ArrowArray))
    child.release = None
    released(whole)
    item = ArrowArray.from_address(words(taken.children, 1)[0])
    assert (taken.length, item.length) == (2, 3)
    assert words(words(taken.buffers, 2)[1], 3) == [0, 1, 3]
    assert words(words(item.buffers, 2)[1], 3) == [5, 6, 7]
    assert alive() is not None
    released(taken)
    assert alive() is None
