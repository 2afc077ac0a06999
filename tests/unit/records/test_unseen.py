"""Tasks outside of the PID namespace of a recording, which all have pid 0: no record names them."""

from __future__ import annotations

import struct

import pytest

pytest.importorskip("numpy")

import numpy as np

from perfkeep.abi.records import MISC_CPUMODE_KERNEL, MISC_CPUMODE_USER, Record
from perfkeep.analysis.mappings import Mappings
from perfkeep.records.cells import values
from perfkeep.records.tasks import Tasks
from perfkeep.records.unseen import is_unseen
from perfkeep.testing.assembler import record

IDS = np.array([0, 5, -1], "i8")


def comm(pid: int, name: bytes) -> memoryview:
    return memoryview(record(Record.COMM, struct.pack("=II", pid, pid) + name.ljust(8, b"\0")))


def fork(pid: int, parent: int) -> memoryview:
    return memoryview(record(Record.FORK, struct.pack("=IIIIQ", pid, parent, pid, parent, 1)))


def mmap(pid: int, misc: int = MISC_CPUMODE_USER) -> memoryview:
    body = struct.pack("=IIQQQ", pid, pid, 0x1000, 0x1000, 0) + b"/bin/x\0\0"
    return memoryview(record(Record.MMAP, body, misc))


def names(*records: tuple[int, memoryview, int]) -> list[str]:
    return values(Tasks(records).column("comm", IDS, np.array([9, 9, 9])))


def test_records_of_pid_0_are_of_tasks_outside_but_for_those_of_the_idle_task() -> None:
    assert is_unseen(comm(0, b"bash")) and is_unseen(fork(0, 0)) and is_unseen(mmap(0))
    assert not is_unseen(comm(0, b"swapper")) and not is_unseen(comm(7, b"bash"))
    assert not is_unseen(fork(7, 0)) and not is_unseen(mmap(7))
    assert not is_unseen(mmap(0, MISC_CPUMODE_KERNEL))  # a guest's kernel
    assert not is_unseen(memoryview(b"\0" * 8))


def test_thread_0_is_called_swapper_only_where_every_task_is_seen() -> None:
    parent = (Record.FORK, fork(5, 0), 2)
    assert names(parent) == ["swapper", ":5", ":-1"]
    outside = (Record.COMM, comm(0, b"bash"), 1)
    assert names(outside, parent) == [":0", ":5", ":-1"]


def test_tasks_outside_map_nothing() -> None:
    mappings = Mappings([(Record.MMAP, mmap(0), 1), (Record.FORK, fork(5, 0), 2)])
    spaces = mappings.at(IDS, np.array([9, 9, 9]))
    assert [mappings.spaces[space].mappings for space in spaces.tolist()] == [[], [], []]
