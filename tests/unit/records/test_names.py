"""perfkeep.records.names and .tasks: columns of names."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest

pytest.importorskip("numpy")

import numpy as np

from perfkeep.abi.records import Record
from perfkeep.records.cells import Column
from perfkeep.records.names import namer
from perfkeep.records.tasks import Tasks

FORMAT = """
	field:long state;	offset:8;	size:8;	signed:1;
	field:int n;	offset:16;	size:4;	signed:1;

print fmt: "%s %d", __print_symbolic(REC->state, { 0, "R" }, { 1, "S" }), REC->n
"""


def texts(column: Column) -> list[str]:
    whole, bounds = column.values.tobytes(), column.offsets
    assert bounds is not None
    return [whole[at:end].decode() for at, end in pairwise(bounds.tolist())]


@pytest.mark.parametrize("some", [[0, 1, 1, 5], [1, -1, 2**40, 0], []])
def test_numbers_that_have_names_have_a_column_of_them_behind(some: list[int]) -> None:
    columns = [
        Column("state", "int", np.array(some, "i8")),
        Column("n", "int", np.array(some, "i8")),
    ]
    found = namer(FORMAT)(columns)
    assert [one.name for one in found] == ["state", "state_name", "n"]
    names = {0: "R", 1: "S"}
    assert texts(found[1]) == [names.get(one, f"{one % 2**64:#x}") for one in some]


def test_a_column_that_is_called_so_already_stays_the_only_one() -> None:
    some = np.array([0], "i8")
    columns = [Column("state", "int", some), Column("state_name", "int", some)]
    assert namer(FORMAT)(columns) == columns


def test_a_thread_is_not_called_what_it_is_called_only_after_its_last_sample() -> None:
    def comm(name: bytes) -> memoryview:
        return memoryview(bytes(8) + struct.pack("=II8s", 7, 7, name))

    tasks = Tasks([(Record.COMM, comm(b"sh"), 10), (Record.COMM, comm(b"rm"), 30)])
    column = tasks.column("comm", np.array([7, 7, 8], "i4"), np.array([12, 20, 20], "i8"))
    assert texts(column) == ["sh", "sh", ":8"]


def test_a_time_that_no_clock_tells_is_later_than_all_others() -> None:
    comm = memoryview(bytes(8) + struct.pack("=II8s", 7, 7, b"sh"))
    tasks = Tasks([(Record.COMM, comm, 10), (Record.COMM, comm, 2**64 - 1)])
    assert texts(tasks.column("comm", np.array([7], "i4"), np.array([12], "i8"))) == ["sh"]
