"""perfkeep.analysis: a file as tables, and what is asked of them."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from perfkeep.abi.perf_data import Feature
from perfkeep.abi.perf_event import Sample
from perfkeep.abi.records import Record
from perfkeep.analysis.data import Data, read
from perfkeep.analysis.sql import SqlError, ask, schema, write_rows
from perfkeep.errors import DataError, UsageError
from perfkeep.formats.arrow import ArrowTable
from perfkeep.formats.perf_data.event import EventDesc
from perfkeep.formats.perf_data.reader import PerfData
from perfkeep.testing.assembler import PLAIN, Assembler

SWITCH = """
	field:char prev_comm[16];	offset:8;	size:16;	signed:0;
	field:pid_t prev_pid;	offset:24;	size:4;	signed:1;
	field:long prev_state;	offset:32;	size:8;	signed:1;
	field:char next_comm[16];	offset:40;	size:16;	signed:0;
	field:pid_t next_pid;	offset:56;	size:4;	signed:1;
"""
WAKEUP = """
	field:char comm[16];	offset:8;	size:16;	signed:0;
	field:pid_t pid;	offset:24;	size:4;	signed:1;
"""
ENTER = "\tfield:int nr;\toffset:8;\tsize:4;\tsigned:1;\n"
EXIT = "\tfield:long ret;\toffset:8;\tsize:8;\tsigned:1;\n"

EVENTS = {
    "sched:sched_switch": Assembler(1, PLAIN | Sample.RAW),
    "sched:sched_wakeup": Assembler(2, PLAIN | Sample.RAW),
    "syscalls:sys_enter_read": Assembler(3, PLAIN | Sample.RAW),
    "syscalls:sys_exit_read": Assembler(4, PLAIN | Sample.RAW),
    "cpu-clock": Assembler(5, PLAIN),
    "x:cpu-clock": Assembler(6, PLAIN),
}
FORMATS = [SWITCH, WAKEUP, ENTER, EXIT, "", ""]


def switch(time: int, prev: int, state: int, next: int) -> bytes:
    names = [f"t{pid}".encode() for pid in (prev, next)]
    raw = bytes(8) + struct.pack("=16si4xq16si", names[0], prev, state, names[1], next)
    return EVENTS["sched:sched_switch"].sample(time, tid=prev, raw=raw)


def wakeup(time: int, pid: int) -> bytes:
    raw = bytes(8) + struct.pack("=16si", f"t{pid}".encode(), pid)
    return EVENTS["sched:sched_wakeup"].sample(time, raw=raw)


def call(time: int, tid: int, ret: int | None = None) -> bytes:
    name = "enter" if ret is None else "exit"
    raw = bytes(8) + (struct.pack("=i", 0) if ret is None else struct.pack("=q", ret))
    return EVENTS[f"syscalls:sys_{name}_read"].sample(time, tid=tid, raw=raw)


def data_of(*records: bytes, wall: int | None = None) -> Data:
    events = []
    for at, ((name, one), format) in enumerate(zip(EVENTS.items(), FORMATS, strict=True)):
        system, _, event = name.partition(":")
        tracepoint = (system, event, at, format) if format else None
        events.append(EventDesc(name, one.attr, {0: [one.id]}, tracepoint))
    features: dict[Feature | int, memoryview] = {}
    if wall is not None:
        features[Feature.CLOCK_DATA] = memoryview(struct.pack("=IIQQ", 1, 1, wall, 0))
    return Data(PerfData(events, memoryview(b"".join(records)), 0, features))


def test_tables_are_called_as_their_events_and_with_the_system_where_two_are_alike() -> None:
    assert list(data_of().tables) == [
        "sched_switch", "sched_wakeup", "sys_enter_read", "sys_exit_read", "cpu_clock",
        "x_cpu_clock",
    ]  # fmt: skip


def test_two_tracepoints_of_one_name_keep_their_systems() -> None:
    attr = EVENTS["cpu-clock"].attr
    events = [
        EventDesc(name, attr, {0: [at]}, ("s", "n", at, ENTER) if at < 3 else None)
        for at, name in enumerate(("a:open", "b:open", "b:close", "page-faults:u"))
    ]
    data = Data(PerfData(events, memoryview(b""), 0, {}))
    assert list(data.tables) == ["a_open", "b_open", "close", "page_faults_u"]


@pytest.mark.parametrize("unit", [1, 10**12, 10**17])
def test_a_thread_has_the_name_that_it_had_then(unit: int) -> None:
    clock = EVENTS["cpu-clock"]
    fork = struct.pack("=IIIIQ", 9, 5, 9, 5, 30 * unit)
    data = data_of(
        clock.comm(5, 5, b"sh", time=10 * unit),
        *(clock.sample(time * unit, pid=5, tid=5) for time in (5, 15, 25)),
        clock.comm(5, 5, b"ls", time=20 * unit),
        clock.other(Record.FORK, fork, 30 * unit),
        clock.comm(9, 9, b"late", time=40 * unit),
        *(clock.sample(time * unit, pid=9, tid=9) for time in (35, 45)),
        clock.sample(50 * unit, pid=77, tid=77),
        clock.sample(50 * unit, pid=0, tid=0),
    )
    rows = ArrowTable.of(data.table("cpu-clock").columns).to_pylist()
    # The oldest sample is older than the first name.
    assert [row["comm"] for row in rows] == [":5", "sh", "ls", "ls", "late", ":77", "swapper"]


def test_times_are_told_by_the_wall_clock_where_the_file_knows_it() -> None:
    clock = EVENTS["cpu-clock"]
    data = data_of(clock.sample(5), wall=10**18)
    assert ask(data.connection, "SELECT epoch_ns(wall) FROM cpu_clock")[1] == [(10**18 + 5,)]
    assert data_of(clock.sample(5)).table("cpu_clock").get("wall") is None


def test_time_off_the_cpu_is_from_the_switch_out_to_the_switch_in() -> None:
    data = data_of(
        switch(100, 1, 1, 2), switch(150, 2, 0, 1), switch(170, 1, 2, 2), switch(400, 2, 1, 0)
    )
    rows = ask(data.connection, "SELECT tid, comm, start, duration_ns, why FROM off_cpu")[1]
    assert sorted(rows) == [(1, "t1", 100, 50, "sleeping"), (2, "t2", 150, 20, "preempted")]


def test_waiting_for_a_cpu_begins_with_the_wakeup_or_with_being_preempted() -> None:
    data = data_of(switch(100, 1, 1, 2), wakeup(130, 1), switch(150, 2, 0, 1), switch(190, 1, 1, 2))
    rows = ask(data.connection, "SELECT tid, start, duration_ns FROM run_queue")[1]
    assert sorted(rows) == [(1, 130, 20), (2, 150, 40)]


def test_calls_are_pairs_of_their_beginning_and_their_end_in_one_thread() -> None:
    data = data_of(call(10, 1), call(11, 2), call(15, 2, -4), call(20, 1, 8), call(30, 1))
    rows = ask(data.connection, "SELECT name, tid, start, duration_ns, ret FROM syscalls")[1]
    assert sorted(rows) == [("read", 1, 10, 10, 8), ("read", 2, 11, 4, -4)]


def test_what_cannot_be_read_is_told_and_the_rest_is_there() -> None:
    stranger = Assembler(id=99).sample(1)
    clock = EVENTS["cpu-clock"]
    data = data_of(clock.sample(1), stranger, clock.lost(3, 2), b"\xff" * 16)
    assert len(data.table("cpu_clock")) == 1
    assert data.complaints() == [
        "1 samples are of events that the file does not know",
        "the last 16 bytes are no records and are left out",
        "3 samples were lost when they were recorded",
    ]


def test_a_table_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(UsageError, match=r"there is no table 'nope'; there are sched_switch,"):
        data_of().to_arrow("nope")


def test_rows_become_a_parquet_file(tmp_path: Path) -> None:
    data = data_of(EVENTS["cpu-clock"].sample(5))
    path = tmp_path / "clock.parquet"
    with open(path, "wb") as out:
        write_rows(data.connection, "SELECT time FROM cpu_clock;", "parquet", out)
    assert ask(data.connection, f"FROM '{path}'") == (["time"], [(5,)])
    with open(path, "wb") as out, pytest.raises(SqlError):
        write_rows(data.connection, "SELECT nope", "parquet", out)


def test_fields_that_nobody_knows_are_told() -> None:
    attr = replace(EVENTS["cpu-clock"].attr, sample_type=Sample(PLAIN | 1 << 40))
    desc = EventDesc("cpu-clock", attr, {0: [5]}, None)
    data = Data(PerfData([desc], memoryview(EVENTS["cpu-clock"].sample(1)), 0, {}))
    assert data.complaints() == ["samples of cpu_clock have fields that this version does not know"]


def test_the_schema_names_every_table_and_view() -> None:
    names = {table for table, _, _ in schema(data_of().connection)}
    assert {"sched_switch", "off_cpu", "run_queue", "syscalls", "cpu_clock"} <= names


@pytest.mark.parametrize("mode", [0o600, 0o666], ids=["nobody else may write", "others may write"])
def test_a_file_is_read_alike_whoever_may_write_to_it(file: str, mode: int) -> None:
    os.chmod(file, mode)
    (frame,) = read(file).tables.values()
    time = frame.get("time")
    assert time is not None and time.values.tolist() == [10, 20, 30]


def test_who_may_write_to_a_file_cannot_end_its_reader(file: str) -> None:
    os.chmod(file, 0o666)
    data = read(file)
    os.truncate(file, 0)
    assert [one.time for one in data.samples()] == [10, 20, 30]


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.data").touch(0o600)
    with pytest.raises(DataError, match="perf"):
        read(str(tmp_path / "x.data"))


def test_every_row_says_which_host_it_is_of(file: str) -> None:
    table = read(file).to_arrow("cpu-clock")
    assert isinstance(table, ArrowTable)
    assert [row["host"] for row in table.to_pylist()] == ["here"] * 3


def test_a_wall_clock_that_no_number_holds_is_not_known() -> None:
    data = data_of(EVENTS["cpu-clock"].sample(5), wall=2**64 - 1)
    assert data.wall_offset_ns is None
    assert data.table("cpu-clock").get("wall") is None
