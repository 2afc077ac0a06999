"""Names of addresses in files that stock perf could have written, by the verbs that show them."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from perfkeep.abi.perf_data import Feature
from perfkeep.abi.perf_event import (
    PERF_CONTEXT_KERNEL,
    PERF_CONTEXT_USER,
    Attr,
    Branch,
    Flag,
    Sample,
)
from perfkeep.abi.records import MISC_CPUMODE_KERNEL, MISC_CPUMODE_USER
from perfkeep.client.data_set import kallsyms
from perfkeep.formats.perf_data.features import string
from perfkeep.symbols.boot import began_ns, here
from perfkeep.symbols.build_id import of_file
from perfkeep.testing.assembler import Assembler, file_event, perf_file
from support.commands import Cli

PLACED = Assembler(sample_type=Sample.IP | Sample.TID | Sample.TIME)
CHAINED = Assembler(sample_type=Sample.IP | Sample.TID | Sample.TIME | Sample.CALLCHAIN)
KERNEL = 0xFFFFFFFF
THIS = here(frozenset())
#: The machine's name and its kernel's release, as in a stock perf.data.
MACHINE = {Feature.HOSTNAME: string(THIS.host), Feature.OSRELEASE: string(THIS.release)}


def write(
    path: Path,
    event: Assembler,
    records: Sequence[bytes],
    features: Mapping[Feature, bytes] | None = None,
    attr: Attr | None = None,
) -> Path:
    records = [event.comm(200, 200, b"worker"), *records]
    path.write_bytes(perf_file([file_event("cpu-clock", attr or event.attr)], records, features))
    return path


def user(ip: int, at: int = 10, pid: int = 200) -> bytes:
    return PLACED.sample(at, pid=pid, tid=pid, ip=ip, misc=MISC_CPUMODE_USER)


def kernel(ip: int) -> bytes:
    return PLACED.sample(10, pid=200, tid=200, ip=ip, misc=MISC_CPUMODE_KERNEL)


def kernel_map(start: int, length: int, path: bytes = b"[kernel.kallsyms]_text") -> bytes:
    return PLACED.mmap(KERNEL, start, length, path, offset=start, misc=MISC_CPUMODE_KERNEL)


def places(cli: Cli, file: Path) -> list[str]:
    """`ip sym (dso)` of each sample."""
    shown = cli("script", file, "-F", "ip,sym,dso").out
    return [" ".join(line.split()) for line in shown.splitlines() if line.strip()]


def build_id_section(path: bytes, id: bytes, misc: int = MISC_CPUMODE_USER) -> bytes:
    """HEADER_BUILD_ID with one entry."""
    name = path.ljust((len(path) + 64) // 64 * 64, b"\0")
    head = struct.pack("=IHHi", 0, misc | 1 << 15, 36 + len(name), -1)
    return head + id.ljust(20, b"\0") + bytes([len(id), 0, 0, 0]) + name


# --- mappings ---------------------------------------------------------------------------------


def test_a_mapping_that_is_replaced_in_part_stays_before_and_behind(
    cli: Cli, tmp_path: Path
) -> None:
    file = write(
        tmp_path / "x.data",
        PLACED,
        [
            PLACED.mmap2(200, 0x400000, 0x10000, b"/opt/app", time=1),
            PLACED.mmap2(200, 0x402000, 0x1000, b"//anon", time=2, inode=0),
            user(0x401000), user(0x402100, 11), user(0x408000, 12),
        ],
    )  # fmt: skip
    assert places(cli, file) == [
        "401000 [unknown] (/opt/app)",
        "402100 [unknown] (/tmp/perf-200.map)",
        "408000 [unknown] (/opt/app)",
    ]
    assert {"app+0x1000", "app+0x8000"} <= set(cli("report", file, "--by", "sym").out.split())


# --- the kernel -------------------------------------------------------------------------------


def test_addresses_of_a_32_bit_kernel_are_the_kernels(cli: Cli, tmp_path: Path) -> None:
    text = kernel_map(0xC0100000, 0xFFFFFFFF3FEFFFFF, b"[kernel.kallsyms]_stext")
    file = write(tmp_path / "x.data", PLACED, [text, kernel(0xC0173B60)])
    assert places(cli, file) == ["c0173b60 [unknown] ([kernel.kallsyms])"]
    assert "[kernel]" in cli("report", file, "--by", "dso").out


def test_a_user_address_in_a_high_half_is_no_kernel_address(cli: Cli, tmp_path: Path) -> None:
    high = 0xC0000000
    file = write(
        tmp_path / "x.data",
        PLACED,
        [
            kernel_map(high, 0x1000000),
            PLACED.mmap2(200, high, 0x1000, b"/opt/app"),
            user(high + 0x10),
            kernel(high + 0x10),
        ],
    )
    assert places(cli, file) == [
        f"{high + 0x10:x} [unknown] (/opt/app)",
        f"{high + 0x10:x} [unknown] ([kernel.kallsyms])",
    ]


@pytest.mark.parametrize("path", [b"[nf_tables]", b"/lib/modules/6.1/kernel/net/nf-tables.ko.xz"])
def test_kernel_modules_keep_their_names(cli: Cli, tmp_path: Path, path: bytes) -> None:
    module = 0xFFFFFFFFC0200000
    file = write(
        tmp_path / "x.data",
        PLACED,
        [
            kernel_map(0xFFFFFFFF81000000, 0x3F000000),
            kernel_map(module, 0x4000, path),
            kernel(module + 0x10),
        ],
    )
    assert places(cli, file) == [f"{module + 0x10:x} [unknown] ([nf_tables])"]
    assert "[nf_tables]" in cli("report", file, "--by", "dso").out


# --- the machine and its boot -----------------------------------------------------------------


def kernel_function() -> tuple[int, int, str]:
    """Addresses of _text and of a function of this kernel, and the function's name."""
    lines = [line.split() for line in kallsyms().decode().splitlines()]
    addresses = {words[2]: int(words[0], 16) for words in lines if words[1] in "tT"}
    if not addresses.get("_text"):
        pytest.skip("the kernel hides its addresses")
    return addresses["_text"], addresses["schedule"], "schedule"


def test_another_kernel_at_the_same_address_gives_no_names(cli: Cli, tmp_path: Path) -> None:
    text, address, _ = kernel_function()
    for features in (
        {},
        {**MACHINE, Feature.OSRELEASE: string("3.2.5-other")},
        {**MACHINE, Feature.BUILD_ID: build_id_section(b"[kernel.kallsyms]", bytes(range(20)), 1)},
        {**MACHINE, Feature.BOOT_ID: string("00000000-0000-0000-0000-000000000000")},
        {**MACHINE, Feature.CLOCK_DATA: struct.pack("=IIQQ", 1, 1, began_ns() - 10**12, 1)},
        {**MACHINE, Feature.HOSTNAME: string("elsewhere")},
    ):
        file = write(
            tmp_path / "x.data", PLACED, [kernel_map(text, 1 << 28), kernel(address)], features
        )
        if text == 0xFFFFFFFF81000000 or Feature.HOSTNAME not in features:
            assert places(cli, file) == [f"{address:x} [unknown] ([kernel.kallsyms])"], features


def test_the_same_boot_gives_names_also_without_an_address_of_the_kernel(
    cli: Cli, tmp_path: Path
) -> None:
    text, address, name = kernel_function()
    for maps in ([kernel_map(text, 1 << 28)], []):
        for features in (
            MACHINE,
            {Feature.BOOT_ID: string(THIS.id)},
            {
                Feature.HOSTNAME: string(THIS.host),
                Feature.BUILD_ID: build_id_section(
                    b"[kernel.kallsyms]", bytes.fromhex(THIS.kernel), 1
                ),
            },
            {**MACHINE, Feature.CLOCK_DATA: struct.pack("=IIQQ", 1, 1, time.time_ns(), 1)},
        ):
            file = write(tmp_path / "x.data", PLACED, [*maps, kernel(address)], features)
            assert places(cli, file) == [f"{address:x} {name} ([kernel.kallsyms])"], features


def test_a_perf_map_is_read_of_this_boot_only(cli: Cli, tmp_path: Path) -> None:
    pid = 1 << 22  # beyond those that Linux hands out
    map_file = Path(f"/tmp/perf-{pid}.map")
    map_file.write_text("500000 1000 jitted\n")
    try:
        records = [PLACED.mmap2(pid, 0x500000, 0x1000, b"//anon", inode=0), user(0x500010, pid=pid)]
        for features, name in ((MACHINE, "jitted"), ({}, "[unknown]")):
            file = write(tmp_path / "x.data", PLACED, records, features)
            assert places(cli, file) == [f"500010 {name} ({map_file})"]
    finally:
        map_file.unlink()


# --- stacks that were recorded otherwise ------------------------------------------------------


def test_a_chain_without_frames_is_the_address_of_the_sample(cli: Cli, tmp_path: Path) -> None:
    event = Assembler(
        sample_type=CHAINED.sample_type | Sample.REGS_USER | Sample.STACK_USER,
    )
    attr = replace(
        event.attr, flags=Flag.SAMPLE_ID_ALL | Flag.EXCLUDE_CALLCHAIN_USER, sample_regs_user=0x100,
        sample_stack_user=64,
    )  # fmt: skip
    text = 0xFFFFFFFF81000000

    def sample(ip: int, misc: int, *chain: int) -> bytes:
        return event.sample(
            10, pid=200, tid=200, ip=ip, callchain=chain, user_regs=[ip], user_stack=bytes(64),
            misc=misc,
        )  # fmt: skip

    file = write(
        tmp_path / "x.data",
        event,
        [
            event.mmap2(200, 0x400000, 0x10000, b"/opt/app"),
            sample(0x401000, MISC_CPUMODE_USER),
            sample(0x402000, MISC_CPUMODE_USER, PERF_CONTEXT_USER),
            sample(text, MISC_CPUMODE_KERNEL, PERF_CONTEXT_KERNEL, text, text + 8),
        ],
        attr=attr,
    )
    ran = cli("report", file, "--by", "comm,sym,dso")
    rows = [line.split()[2:] for line in ran.out.splitlines()[2:]]
    assert ["1", "worker", "app+0x1000", "/opt/app"] in rows
    assert ["1", "worker", "app+0x2000", "/opt/app"] in rows
    assert ["1", "worker", f"{text:#x}", "[kernel]"] in rows
    assert ran.err.count("\n") == 1 and "--call-graph dwarf" in ran.err
    assert "app+0x1000" in cli("export", file, "--to", "folded", "-o", "-").out


@pytest.mark.parametrize(
    ("kind", "words"), [(Branch.CALL_STACK, "--call-graph lbr"), (Branch(0), "perfkeep sql")]
)
def test_branch_stacks_are_not_passed_over_in_silence(
    cli: Cli, tmp_path: Path, kind: Branch, words: str
) -> None:
    event = Assembler(sample_type=PLACED.sample_type | Sample.BRANCH_STACK)
    sample = event.sample(10, pid=200, tid=200, ip=0x1000, branches=[(1, 2, 0)])
    attr = replace(event.attr, branch_sample_type=kind)
    file = write(tmp_path / "x.data", event, [sample], attr=attr)
    ran = cli("report", file, "--by", "sym")
    assert "0x1000" in ran.out
    assert ran.err.count("\n") == 1 and words in ran.err


# --- the identity of files --------------------------------------------------------------------


@pytest.fixture
def program() -> tuple[bytes, int, str]:
    """A library, the offset of a function in it, and the function's name."""
    import ctypes
    import re

    function = ctypes.CDLL(None).getpriority
    address = ctypes.cast(function, ctypes.c_void_p).value or 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        words = re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \d+ +(/.*)", line)
        if words and int(words[1], 16) <= address < int(words[2], 16):
            offset = address - int(words[1], 16) + int(words[3], 16)
            return words[4].encode(), offset, "getpriority"
    pytest.fail("the C library is not mapped")


def named(
    cli: Cli, tmp_path: Path, path: bytes, offset: int, inode: int,
    features: Mapping[Feature, bytes] | None = None,
) -> tuple[str, str]:  # fmt: skip
    """The function's name in `report`, and its remarks."""
    mapping = PLACED.mmap2(200, 0x10000000, 0x8000000, path, inode=inode, device=(0, 0))
    sample = user(0x10000000 + offset)
    ran = cli(
        "report", write(tmp_path / "x.data", PLACED, [mapping, sample], features), "--by", "sym"
    )
    return ran.out.split()[-1], ran.err


def test_symbols_are_those_of_the_file_that_was_mapped(
    cli: Cli, tmp_path: Path, program: tuple[bytes, int, str]
) -> None:
    path, offset, name = program
    unnamed = f"{os.path.basename(path).decode()}+{offset:#x}"
    inode = os.stat(path).st_ino
    assert named(cli, tmp_path, path, offset, inode)[0].endswith(name)
    assert named(cli, tmp_path, path, offset, 0)[0].endswith(name)
    shown, remark = named(cli, tmp_path, path, offset, inode + 1)
    assert shown == unnamed
    assert path.decode() in remark and remark.count("\n") == 1


def test_a_build_id_of_the_file_counts_more_than_its_inode(
    cli: Cli, tmp_path: Path, program: tuple[bytes, int, str]
) -> None:
    path, offset, name = program
    id = of_file(path)
    if id is None:
        pytest.skip("the C library has no build id")
    inode = os.stat(path).st_ino
    perfkeeps = {Feature.VERSION: string("perfkeep 1")}
    same = {Feature.BUILD_ID: build_id_section(path, id)}
    other = {Feature.BUILD_ID: build_id_section(path, bytes(20))}
    assert named(cli, tmp_path, path, offset, inode + 1, perfkeeps | same)[0].endswith(name)
    assert not named(cli, tmp_path, path, offset, inode, other)[0].endswith(name)
    # perf reads the id by the path when it ends, where another container's file may lie.
    assert not named(cli, tmp_path, path, offset, inode + 1, MACHINE | same)[0].endswith(name)


def test_a_file_that_was_unlinked_is_not_what_has_its_name_now(
    cli: Cli, tmp_path: Path, program: tuple[bytes, int, str]
) -> None:
    path, offset, name = program
    unlinked = path + b" (deleted)"
    inode = os.stat(path).st_ino
    assert not named(cli, tmp_path, unlinked, offset, inode)[0].endswith(name)
    id = of_file(path)
    if id is not None:
        same = {Feature.BUILD_ID: build_id_section(unlinked, id)}
        assert named(cli, tmp_path, unlinked, offset, inode, same)[0].endswith(name)


@pytest.mark.parametrize("odd", ["we ird (deleted)", "new\nline", "back\\012slash"])
def test_a_file_with_an_odd_name_has_its_functions(
    cli: Cli, tmp_path: Path, program: tuple[bytes, int, str], odd: str
) -> None:
    path, offset, name = program
    copy = tmp_path / odd
    copy.write_bytes(Path(os.fsdecode(path)).read_bytes())
    found, _ = named(cli, tmp_path, bytes(copy), offset, copy.stat().st_ino)
    assert found.endswith(name)
