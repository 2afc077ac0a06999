"""What was running."""

from __future__ import annotations

import struct

from perfkeep.abi.perf_event import Attr, Flag, Software, Type
from perfkeep.abi.records import Record
from perfkeep.records.summary import Source, table
from perfkeep.testing.assembler import PLAIN, Assembler

CLOCK = Assembler(id=1)
SWITCH = Assembler(id=2)


def _sources() -> list[Source]:
    clock = Attr(
        type=Type.SOFTWARE,
        config=Software.CPU_CLOCK,
        sample_type=PLAIN,
        flags=Flag.SAMPLE_ID_ALL,
    )
    switch = Attr(type=Type.TRACEPOINT, config=9, sample_type=PLAIN, flags=Flag.SAMPLE_ID_ALL)
    return [Source("cpu-clock", clock, [1]), Source("sched:sched_switch", switch, [2])]


def _records(*data: bytes) -> list[tuple[int, memoryview]]:
    return [(int.from_bytes(one[:4], "little"), memoryview(one)) for one in data]


def test_processes_come_by_their_share_of_the_clock() -> None:
    rows = table(
        _sources(),
        _records(
            CLOCK.comm(10, 10, b"busy"),
            CLOCK.comm(11, 11, b"idle"),
            *[CLOCK.sample(t, pid=10, tid=10) for t in range(3)],
            CLOCK.sample(4, pid=11, tid=11),
            *[SWITCH.sample(t, pid=11, tid=11) for t in range(9)],
        ),
    )
    assert [(row.comm, row.pid, row.share) for row in rows] == [
        ("busy", 10, 0.75),
        ("idle", 11, 0.25),
    ]
    assert rows[1].samples == [1, 9]


def test_a_process_without_a_name_goes_by_its_pid() -> None:
    rows = table(_sources(), _records(CLOCK.sample(1, pid=99, tid=99)))
    assert [row.comm for row in rows] == [":99"]


def test_a_process_that_called_itself_nothing_is_called_what_its_parent_is() -> None:
    def fork(pid: int, parent: int) -> bytes:
        return CLOCK.other(Record.FORK, struct.pack("=IIIIQ", pid, parent, pid, parent, 0), 0)

    found = _records(
        # In any order: those of who has ended come first.
        fork(30, 20), fork(30, 30), fork(20, 10), fork(10, 1), fork(40, 40), fork(50, 51), fork(51, 50),
        CLOCK.comm(10, 10, b"server"), fork(60, 10), CLOCK.comm(60, 60, b"other"),
        *[CLOCK.sample(1, pid=pid, tid=pid) for pid in (30, 40, 50, 60)],
    )  # fmt: skip
    comms = {row.pid: row.comm for row in table(_sources(), found)}
    assert comms == {30: "server", 40: ":40", 50: ":50", 60: "other"}


def test_a_thread_does_not_rename_its_process() -> None:
    found = _records(
        CLOCK.comm(10, 10, b"server"),
        CLOCK.comm(10, 12, b"worker"),
        CLOCK.sample(1, pid=10, tid=12),
    )
    assert [row.comm for row in table(_sources(), found)] == ["server"]


def test_without_a_clock_there_is_no_share() -> None:
    rows = table(_sources()[1:], _records(SWITCH.sample(1, pid=5, tid=5)))
    assert rows[0].share is None and rows[0].samples == [1]


def test_samples_of_unknown_events_are_left_out() -> None:
    stranger = Assembler(id=77)
    assert table(_sources(), _records(stranger.sample(1))) == []
