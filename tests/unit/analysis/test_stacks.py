"""perfkeep.analysis.stacks and symbolize: what was running, by function."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("duckdb")

from perfkeep.abi.perf_data import Feature
from perfkeep.abi.perf_event import Sample
from perfkeep.abi.records import MISC_COMM_EXEC, Record
from perfkeep.analysis.data import Data
from perfkeep.analysis.mappings import Mappings
from perfkeep.analysis.stacks import default_event, shares, stacks
from perfkeep.errors import DataError, UsageError
from perfkeep.formats.folded import folded
from perfkeep.formats.perf_data.event import EventDesc
from perfkeep.formats.perf_data.features import string
from perfkeep.formats.perf_data.reader import PerfData
from perfkeep.formats.speedscope import speedscope
from perfkeep.symbols.vdso import vdso
from perfkeep.testing.assembler import PLAIN, Assembler

KERNEL_MARK, USER_MARK = 2**64 - 128, 2**64 - 512
TEXT = 0xFFFFFFFF81000000
KALLSYMS = f"{TEXT:x} T _text\n{TEXT + 0x100:x} t inner\n{TEXT + 0x200:x} t outer\n".encode()
EVENT = Assembler(sample_type=PLAIN | Sample.IP | Sample.CALLCHAIN)


def mmap(pid: int, start: int, length: int, path: str, offset: int = 0) -> bytes:
    body = struct.pack("=IIQQQIIQQII", pid, pid, start, length, offset, 0, 0, 0, 0, 5, 2)
    return EVENT.other(Record.MMAP2, body + path.encode() + b"\0", 0)


def kernel(text: int = TEXT) -> bytes:
    body = struct.pack("=IIQQQ", 0xFFFFFFFF, 0, text, 1 << 30, text)
    return EVENT.other(Record.MMAP, body + b"[kernel.kallsyms]_text\0", 0)


def sample(pid: int, *chain: int) -> bytes:
    return EVENT.sample(1, pid=pid, tid=pid, ip=chain[0], callchain=chain)


def data_of(
    records: Sequence[bytes], kallsyms: bytes = KALLSYMS, release: str = os.uname().release
) -> Data:
    """A recording of this machine, with the kernel of that release."""
    desc = EventDesc("cpu-clock", EVENT.attr, {0: [7]}, None)
    features: dict[Feature | int, memoryview] = {
        Feature.HOSTNAME: memoryview(string(os.uname().nodename)),
        Feature.OSRELEASE: memoryview(string(release)),
    }
    return Data(PerfData([desc], memoryview(b"".join(records)), 0, features), lambda: kallsyms)


def chains(data: Data) -> dict[tuple[str, ...], int]:
    found = stacks(data, "cpu-clock")
    return {
        (str(key[0]), *(found.functions[one].name for one in chain)): count
        for (key, chain), count in found.samples.items()
    }


def test_stacks_are_named_from_the_outermost_frame_to_the_innermost() -> None:
    data = data_of(
        [kernel(), EVENT.comm(5, 5, b"sh"), mmap(5, 0x1000, 0x1000, "/nowhere/lib.so", 0x40)]
        + [mmap(5, 0x9000, 0x1000, "/nowhere/sh")]
        + [sample(5, KERNEL_MARK, TEXT + 0x110, TEXT + 0x208, USER_MARK, 0x1010, 0x9999)] * 3
    )
    assert chains(data) == {("sh", "sh+0x999", "lib.so+0x50", "outer", "inner"): 3}


def test_symbols_of_a_kernel_at_another_address_are_not_used() -> None:
    data = data_of([kernel(TEXT + 0x1000000), sample(5, KERNEL_MARK, TEXT + 0x110)])
    assert chains(data) == {(":5", f"{TEXT + 0x110:#x}"): 1}


def test_the_same_address_of_two_processes_is_two_things() -> None:
    data = data_of(
        [mmap(5, 0x1000, 0x1000, "/nowhere/a"), mmap(6, 0x1000, 0x1000, "/nowhere/b")]
        + [sample(pid, USER_MARK, 0x1010) for pid in (5, 6, 7)]
    )
    assert set(chains(data)) == {(":5", "a+0x10"), (":6", "b+0x10"), (":7", "0x1010")}


def test_no_address_is_taken_for_one_of_another_process() -> None:
    # In the first and the second address space, and such that what differs could cancel out.
    near, far = 0x1010, 0x1010 ^ (1 ^ 2) << 40
    mappings = [mmap(5, near - 0x10, 99, "/nowhere/a"), mmap(6, far - 0x10, 99, "/nowhere/b")]
    data = data_of([*mappings, sample(5, USER_MARK, near), sample(6, USER_MARK, far)])
    assert set(chains(data)) == {(":5", "a+0x10"), (":6", "b+0x10")}


def test_a_child_has_what_its_parent_had_and_a_later_mapping_counts() -> None:
    fork = EVENT.other(Record.FORK, struct.pack("=IIIIQ", 6, 5, 6, 5, 1), 1)
    exec = bytearray(EVENT.comm(6, 6, b"x"))
    struct.pack_into("=H", exec, 4, MISC_COMM_EXEC)
    mappings = Mappings(
        (struct.unpack_from("=I", one)[0], memoryview(one), time)
        for one, time in (
            (mmap(5, 0x1000, 0x1000, "/old"), 10), (mmap(5, 0x3000, 0x1000, "/other"), 10),
            (fork, 20), (mmap(5, 0x1800, 0x1000, "/new"), 30), (exec, 40),
            (mmap(6, 0x800, 0x3000, "/exec"), 50),
        )
    )  # fmt: skip

    def paths(pid: int, time: int) -> list[str]:
        (number,) = mappings.at(np.array([pid]), np.array([time], "u8")).tolist()
        return [one.path for one in mappings.spaces[number].mappings]

    assert paths(5, 60) == ["/old", "/new", "/other"]
    assert paths(6, 25) == ["/old", "/other"]
    assert paths(6, 60) == ["/exec", "/other"]
    assert paths(99, 25) == []
    assert mappings.at(np.array([5, 6, 99]), None).tolist() == [2, 3, 0]


def test_shares_count_what_was_taken_in_a_function_and_in_what_it_called() -> None:
    data = data_of(
        [kernel(), EVENT.comm(5, 5, b"sh")]
        + [sample(5, KERNEL_MARK, TEXT + 0x110, TEXT + 0x208)] * 3
        + [sample(5, KERNEL_MARK, TEXT + 0x208, TEXT + 0x208)]
    )
    rows = shares(stacks(data, "cpu_clock"), ["sym"])
    assert [(row.values, row.self, row.total) for row in rows] == [
        ({"comm": "sh", "sym": "inner"}, 3, 3),
        ({"comm": "sh", "sym": "outer"}, 1, 4),
    ]
    (row,) = shares(stacks(data, "cpu_clock", ["pid"]), [], ["pid"])
    assert (row.values, row.self, row.total) == ({"pid": 5}, 4, 4)


def test_an_event_that_says_nothing_of_places_is_told() -> None:
    event = Assembler(sample_type=PLAIN)
    desc = EventDesc("faults", event.attr, {0: [7]}, None)
    data = Data(PerfData([desc], memoryview(event.sample(1)), 0, {}))
    with pytest.raises(UsageError, match="does not record where"):
        stacks(data, "faults")
    with pytest.raises(UsageError, match="no event of these samples"):
        default_event(data)


def test_where_no_sample_fits_its_record_there_are_no_stacks() -> None:
    event = Assembler(sample_type=PLAIN | Sample.CALLCHAIN)
    bad = bytearray(event.sample(1, callchain=[6]))
    struct.pack_into("=Q", bad, len(bad) - 16, 1 << 61)
    desc = EventDesc("cpu-clock", event.attr, {0: [7]}, None)
    data = Data(PerfData([desc], memoryview(bytes(bad)), 0, {}))
    assert data.malformed == 1
    assert not stacks(data, "cpu-clock").samples and not stacks(data, "cpu-clock", []).samples


def test_the_clock_is_asked_first() -> None:
    assert default_event(data_of([sample(5, USER_MARK, 1)])) == "cpu_clock"


def test_folded_stacks_are_lines_that_nothing_in_a_name_can_break() -> None:
    lines = folded([(["sh", "a;b", "c\nd"], 2), (["sh", "a_b", "c_d"], 1), (["", "x"], 1)])
    assert list(lines) == ["_;x 1\n", "sh;a_b;c_d 3\n"]


def test_speedscope_has_each_frame_once_and_all_weights() -> None:
    made = speedscope("x", [([("a", ""), ("b", "f")], 2), ([("a", "")], 3)])
    assert made["shared"]["frames"] == [{"name": "a"}, {"name": "b", "file": "f"}]
    (profile,) = made["profiles"]
    assert profile["samples"] == [[0, 1], [0]] and profile["weights"] == [2, 3]
    assert profile["endValue"] == 5
    assert json.loads(json.dumps(made)) == made


def test_the_vdso_of_this_kernel_is_named_and_that_of_another_is_not() -> None:
    at = 0x7000_0000_0000
    try:
        image = vdso(at)
    except DataError as error:
        pytest.skip(str(error))
    inside = int(image.symbols.starts[0])
    name = image.symbols.names_of(np.array([inside], "u8"))[0]
    records = [mmap(5, at, 0x2000, "[vdso]"), sample(5, USER_MARK, at + inside)]
    assert chains(data_of(records)) == {(":5", name): 1}
    assert chains(data_of(records, release="6.1.0")) == {(":5", f"[vdso]+{inside:#x}"): 1}


def test_a_mapping_that_ends_beyond_all_addresses_ends_with_them() -> None:
    where = (1 << 62) + 5
    data = data_of([mmap(5, 1 << 62, 2**64 - 1, "/nowhere"), sample(5, where)])
    assert {chain[1:] for chain in chains(data)} == {("nowhere+0x5",)}


def test_a_mapping_of_what_no_file_has_has_no_functions() -> None:
    program = os.path.realpath("/proc/self/exe")
    data = data_of([mmap(5, 0x1000, 0x1000, program, 2**64 - 0x10), sample(5, 0x1020)])
    ((_, name),) = chains(data)
    place = data.symbolizer.place(int(data.symbolizer.mappings.at(np.array([5]), None)[0]), 0x1020)
    assert (place.name or f"{os.path.basename(program)}+0x10") == name
