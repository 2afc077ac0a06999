"""perfkeep.formats.perf_data.told: a snapshot has the processes of its samples, and no others."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.records import Record
from perfkeep.formats.perf_data.told import Mapped, mapped, relevant, without_mappings


def record(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHH", kind, 0, 8 + len(body)) + body


def fork(pid: int, parent: int, time: int = 0) -> bytes:
    return record(Record.FORK, struct.pack("=IIIIQ", pid, parent, pid, parent, time))


def exit(pid: int, time: int) -> bytes:
    return record(Record.EXIT, struct.pack("=IIIIQ", pid, 1, pid, 1, time))


def comm(pid: int) -> bytes:
    return record(Record.COMM, struct.pack("=II", pid, pid) + b"name\0\0\0\0")


def maps_something(pid: int) -> bytes:
    return record(Record.MMAP2, struct.pack("=IIQ", pid, pid, 0x1000) + bytes(48))


def kept(*told: bytes, first_ns: int | None = 100) -> list[bytes]:
    return [bytes(one) for one in relevant(memoryview(b"".join(told)), first_ns)]


def test_what_had_ended_before_the_first_sample_is_left_out() -> None:
    gone, late, lives = [fork(5, 1), exit(5, 99)], [fork(6, 1), exit(6, 100)], [fork(7, 1)]
    assert kept(*gone, *late, *lives) == late + lives


def test_what_had_ended_stays_while_what_it_forked_is_needed() -> None:
    grandparent = [fork(4, 1), maps_something(4), exit(4, 50)]
    parent, child = [fork(5, 4), exit(5, 60)], [fork(6, 5), comm(6)]
    assert kept(*grandparent, *parent, *child) == grandparent + parent + child


def test_without_times_all_is_kept() -> None:
    told = [fork(5, 1), exit(5, 1), comm(6)]
    assert kept(*told, first_ns=None) == told


def test_those_without_mappings_of_their_own_are_looked_for() -> None:
    told = comm(2) + comm(5) + maps_something(5) + fork(6, 5) + fork(7, 5) + exit(7, 1)
    assert without_mappings(memoryview(told)) == {2, 6}


@given(st.binary(max_size=300), st.integers(0, 2**64 - 1))
def test_what_is_no_record_ends_them(noise: bytes, first_ns: int) -> None:
    told = comm(5) + noise
    found = relevant(memoryview(told), first_ns)
    assert sum(map(len, found)) <= len(told)
    assert without_mappings(memoryview(told)) is not None


def test_files_are_known_by_path_and_inode_and_the_last_who_mapped_them_counts() -> None:
    def maps(pid: int, start: int, inode: int, path: bytes) -> bytes:
        body = struct.pack("=IIQQQIIQQII", pid, pid, start, 0x1000, 0, 8, 1, inode, 0, 5, 2)
        return record(Record.MMAP2, body + path.ljust(16, b"\0"))

    told = [maps(5, 0x1000, 7, b"/bin/x"), maps(6, 0x2000, 8, b"/bin/x"), maps(6, 0, 9, b"/lib/y")]
    found = mapped(memoryview(one) for one in told)
    assert found == {
        b"/bin/x": (6, Mapped(b"/bin/x", 8, 0x2000, 0x1000)),
        b"/lib/y": (6, Mapped(b"/lib/y", 9, 0, 0x1000)),
    }
