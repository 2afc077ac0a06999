"""perfkeep.broker.processes: of what lives nothing is forgotten, and what is kept is bounded."""

from __future__ import annotations

import operator
import struct
import tracemalloc
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Sample
from perfkeep.abi.records import Record
from perfkeep.broker.processes import Processes, Run, in_order

#: What struct sample_id may have, in its order.
TRAILER = (
    Sample.TID, Sample.TIME, Sample.ID, Sample.STREAM_ID, Sample.CPU, Sample.IDENTIFIER
)  # fmt: skip


def record(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 8)
    return struct.pack("=IHH", kind, 0, 8 + len(body)) + body


def fork(pid: int, parent: int, tid: int | None = None) -> bytes:
    return record(Record.FORK, struct.pack("=IIIIQ", pid, parent, tid or pid, parent, 0))


def exit(pid: int, tid: int | None = None) -> bytes:
    return record(Record.EXIT, struct.pack("=IIIIQ", pid, 1, tid or pid, 1, 0))


def comm(pid: int, tid: int, name: bytes) -> bytes:
    return record(Record.COMM, struct.pack("=II", pid, tid) + name + b"\0")


def mapped(pid: int, at: int = 0x1000) -> bytes:
    return record(Record.MMAP2, struct.pack("=IIQ", pid, pid, at) + bytes(48) + b"/bin/x\0")


def kept(processes: Processes, kernel: bool = True) -> list[bytes]:
    """Record by record."""
    data, found, at = b"".join(processes.records(kernel)), [], 0
    while at < len(data):
        _, _, size = struct.unpack_from("=IHH", data, at)
        found.append(data[at : at + size])
        at += size
    return found


def test_what_a_task_did_is_together_and_those_that_ended_come_first() -> None:
    processes = Processes()
    told = [
        fork(5, 1), fork(6, 1), comm(6, 6, b"six"), comm(5, 5, b"five"), mapped(5), mapped(6),
        exit(5),
    ]  # fmt: skip
    processes.fold(b"".join(told))
    five, six = [told[0], told[3], told[4], told[6]], [told[1], told[2], told[5]]
    assert kept(processes) == five + six


def test_a_process_that_lives_is_remembered_however_many_others_came_and_went() -> None:
    processes = Processes(room=4096)
    first = fork(5, 1) + comm(5, 5, b"keeps") + mapped(5)
    processes.fold(first)
    for pid in range(100, 1100):
        processes.fold(fork(pid, 1) + mapped(pid) + exit(pid))
        assert sum(map(len, processes.records())) <= 4096
    assert b"".join(kept(processes)).endswith(first)
    # The newest of those that ended are there as well.
    assert fork(1099, 1) in kept(processes) and fork(100, 1) not in kept(processes)
    assert not processes.forgot


def test_when_those_that_live_are_too_many_it_is_said() -> None:
    processes = Processes(room=4096)
    for pid in range(100, 200):
        processes.fold(fork(pid, 1) + mapped(pid))
    assert processes.forgot
    assert sum(map(len, processes.records())) <= 4096
    assert fork(199, 1) in kept(processes)


def test_who_maps_for_ever_keeps_where_it_came_from_and_the_newest() -> None:
    processes = Processes()
    processes.fold(fork(5, 1))
    for at in range(2000):
        processes.fold(mapped(5, at << 12))
    at_once = Processes()
    at_once.fold(fork(5, 1) + b"".join(mapped(5, at << 12) for at in range(2000)))
    for one in (processes, at_once):
        found = kept(one)
        assert found[0] == fork(5, 1) and found[-1] == mapped(5, 1999 << 12)
        assert sum(map(len, found)) <= 64 << 10 and len(found) > 100


def test_it_takes_little_more_memory_than_twice_its_room() -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        processes = Processes(room=1 << 20)
        for tid in range(2, 40_000):
            processes.fold(fork(1, 1, tid) + exit(1, tid))
        for pid in range(40_000, 45_000):
            processes.fold(fork(pid, 1) + comm(pid, pid, b"name") + mapped(pid))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 5 << 19


def test_a_number_that_another_process_has_now_begins_anew() -> None:
    processes = Processes()
    processes.fold(fork(5, 1) + mapped(5) + fork(5, 2))
    processes.fold(exit(5))
    assert kept(processes) == [fork(5, 1), mapped(5), fork(5, 2), exit(5)]


def test_a_thread_that_ends_does_not_take_the_mappings_with_it() -> None:
    processes = Processes(room=4096)
    processes.fold(fork(5, 1) + mapped(5))
    for tid in range(100, 1000):
        processes.fold(fork(5, 5, tid) + comm(5, tid, b"worker") + exit(5, tid))
    assert kept(processes)[-2:] == [fork(5, 1), mapped(5)]


def test_what_has_addresses_of_the_kernel_can_be_left_out() -> None:
    symbol = record(Record.KSYMBOL, struct.pack("=QIHH", 0xFFFFFFFF81000000, 16, 1, 0) + b"bpf\0")
    processes = Processes()
    processes.fold(symbol + fork(5, 1))
    assert kept(processes) == [symbol, fork(5, 1)]
    assert kept(processes, kernel=False) == [fork(5, 1)]


@given(st.lists(st.binary(max_size=40)), st.binary(max_size=15))
def test_records_of_a_backward_ring_are_turned_round(bodies: list[bytes], torn: bytes) -> None:
    some = [record(Record.COMM, bytes(8) + body) for body in bodies]
    found = Run(b"".join(some) + torn, Sample(0))
    assert in_order([found]) == b"".join(reversed(some))


@given(
    st.sets(st.sampled_from([*TRAILER])),
    st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=9), max_size=4),
    st.integers(0, 2**64 - 1),
)
def test_records_of_all_rings_are_put_in_the_order_of_time_wherever_that_lies(
    words: set[Sample], rings: list[list[int]], until: int
) -> None:
    # As in struct sample_id.
    order = [word for word in TRAILER if word in words]
    sample_type = reduce(operator.or_, words, Sample(0))
    runs, expected = [], []
    for number, times in enumerate(rings):
        some = []
        for time in sorted(times):
            trailer = [time if word == Sample.TIME else 7 for word in order]
            body = struct.pack(f"=II{len(order)}Q", 5, number, *trailer)
            some.append((time if Sample.TIME in words else 0, record(Record.COMM, body)))
        run = Run(b"".join(one for _, one in reversed(some)), sample_type)
        assert list(run.times) == [time for time, _ in some]
        cut = run.cut(until)
        assert cut == sum(len(one) for time, one in some if time > until)
        runs.append(run)
        expected += [one for one in some if one[0] <= until]
    expected.sort(key=lambda one: one[0])
    assert in_order(runs) == b"".join(one for _, one in expected)


@given(st.binary(max_size=400), st.lists(st.tuples(st.integers(0, 30), st.binary(max_size=60))))
def test_whatever_it_is_told_it_stays_within_its_room(
    noise: bytes, some: list[tuple[int, bytes]]
) -> None:
    processes = Processes(room=1024)
    for kind, body in some:
        processes.fold(record(kind, body))
        assert sum(map(len, processes.records())) <= 1024
    processes.fold(noise)
    assert sum(map(len, processes.records())) <= 1024
