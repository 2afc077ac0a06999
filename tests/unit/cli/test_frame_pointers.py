"""Call chains of programs without frame pointers: what `report` and the exports make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("duckdb")

from perfkeep.abi.perf_event import PERF_CONTEXT_KERNEL, PERF_CONTEXT_USER, Flag, Sample
from perfkeep.abi.records import MISC_CPUMODE_KERNEL, MISC_CPUMODE_USER
from perfkeep.analysis.chains import Frames
from perfkeep.analysis.frame_pointers import judge
from perfkeep.analysis.mappings import Mapping, Mappings, Space
from perfkeep.testing.assembler import Assembler, file_event, perf_file
from support.commands import Cli

EVENT = Assembler(sample_type=Sample.IP | Sample.TID | Sample.TIME | Sample.CALLCHAIN)
CODE, JITTED, STACK = 0x400000, 0x7F0000000000, 0x7FFF12345678
KERNEL = 0xFFFFFFFF81000000
WITH, WITHOUT, UNKNOWN = 200, 300, 400


def sample(pid: int, *frames: int, misc: int = MISC_CPUMODE_USER) -> bytes:
    user = next((at for at, frame in enumerate(frames) if frame < KERNEL), len(frames))
    chain = [PERF_CONTEXT_KERNEL, *frames[:user]] if user else []
    chain += [PERF_CONTEXT_USER, *frames[user:]] if user < len(frames) else []
    return EVENT.sample(10, pid=pid, tid=pid, ip=frames[0], callchain=chain, misc=misc)


def written(path: Path, samples: Sequence[bytes], flags: Flag = Flag.SAMPLE_ID_ALL) -> Path:
    records = [EVENT.comm(WITH, WITH, b"with"), EVENT.comm(WITHOUT, WITHOUT, b"without")]
    records.append(EVENT.comm(UNKNOWN, UNKNOWN, b"unknown"))
    for pid in (WITH, WITHOUT):
        records.append(EVENT.mmap2(pid, CODE, 0x10000, b"/opt/%d/app" % pid))
        records.append(EVENT.mmap2(pid, JITTED, 0x1000, b"//anon", inode=0))
        records.append(EVENT.mmap2(pid, STACK & ~0xFFF, 0x1000, b"[stack]", inode=0, prot=3))
    events = [file_event("cpu-clock", replace(EVENT.attr, flags=flags))]
    path.write_bytes(perf_file(events, [*records, *samples]))
    return path


GOOD = [sample(WITH, CODE + 0x10, CODE + 0x20, CODE + 0x30)] * 20
BROKEN = [
    sample(WITHOUT, CODE + 0x10),
    sample(WITHOUT, CODE + 0x10, STACK),
    sample(WITHOUT, CODE + 0x10, 0x1234, STACK),
    sample(WITHOUT, KERNEL, CODE + 0x10, 7, misc=MISC_CPUMODE_KERNEL),
]


def test_a_mix_of_programs_names_those_without_frame_pointers_only(
    cli: Cli, tmp_path: Path
) -> None:
    file = written(tmp_path / "x.data", GOOD + BROKEN)
    for words in (
        ("report", file, "--by", "comm,sym"),
        ("report", file, "--tree"),
        ("export", file, "--to", "flamegraph", "-o", tmp_path / "x.html"),
        ("export", file, "--to", "pprof", "-o", tmp_path / "x.pb.gz"),
        ("export", file, "--to", "perfetto", "-o", tmp_path / "x.trace"),
    ):
        ran = cli(*words)
        assert ran.code == 0
        (line,) = ran.err.splitlines()
        assert (
            "100% of the samples of without (in app)" in line and "-fno-omit-frame-pointer" in line
        )
        assert line.count("%") == 1


def test_frames_outside_code_are_dropped_and_the_leaf_stays(cli: Cli, tmp_path: Path) -> None:
    file = written(tmp_path / "x.data", GOOD + BROKEN)
    assert set(cli("export", file, "--to", "folded", "-o", "-").out.splitlines()) == {
        "with;app+0x30;app+0x20;app+0x10 20",
        "without;app+0x10 3",
        f"without;app+0x10;{KERNEL:#x} 1",
    }


@pytest.mark.parametrize(
    "samples",
    [
        GOOD,
        # Programs begin in code that has no frame pointers.
        [sample(WITH, CODE + 0x10, CODE + 0x20, 0x1, STACK)] * 9,
        # Code that a just-in-time compiler made.
        [sample(WITH, JITTED + 0x10, JITTED + 0x20, CODE + 0x20)] * 9,
        # Without mappings nothing can be said: of the process, or of the code that runs.
        [sample(UNKNOWN, CODE + 0x10, 0x1234)] * 9,
        [sample(WITH, CODE + 0x10_0000, 0x1234)] * 9,
        # The kernel's own.
        [sample(WITH, KERNEL, KERNEL + 8, misc=MISC_CPUMODE_KERNEL)] * 9,
        # The loader's share of a longer run.
        [*GOOD * 10, sample(WITH, CODE + 0x10)],
    ],
)
def test_nothing_is_said_where_no_program_is_without(
    cli: Cli, tmp_path: Path, samples: list[bytes]
) -> None:
    file = written(tmp_path / "x.data", samples)
    assert cli("report", file, "--by", "sym").err == ""


def test_frames_of_a_process_without_mappings_are_shown(cli: Cli, tmp_path: Path) -> None:
    file = written(tmp_path / "x.data", [sample(UNKNOWN, CODE + 0x10, 0x1234)])
    folded = cli("export", file, "--to", "folded", "-o", "-").out
    assert folded == f"unknown;0x1234;{CODE + 0x10:#x} 1\n"


def test_chains_of_the_kernel_only_are_not_broken(cli: Cli, tmp_path: Path) -> None:
    """As of perf record --call-graph dwarf, where the sample's address stands for the rest."""
    flags = Flag.SAMPLE_ID_ALL | Flag.EXCLUDE_CALLCHAIN_USER
    file = written(tmp_path / "x.data", [sample(WITH, CODE + 0x10)] * 9, flags)
    assert cli("report", file, "--by", "sym").err == ""


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 0x1000, 0x1800, 0x2000, KERNEL])),
            max_size=5,
        ),
        max_size=8,
    )
)
def test_a_chain_is_judged_alike_alone_and_among_others(
    chains: list[list[tuple[int, int]]],
) -> None:
    mappings = Mappings([])
    mappings.spaces.append(Space(5, [Mapping(0x1000, 0x2000, 0, "/opt/app")]))
    mappings.spaces.append(Space(6, []))

    def frames(some: list[list[tuple[int, int]]]) -> Frames:
        flat = [frame for chain in some for frame in chain]
        return Frames(
            np.array([space for space, _ in flat], "i8"),
            np.array([address for _, address in flat], "u8"),
            np.array([len(chain) for chain in some], "i8"),
        )

    together = judge(mappings, frames(chains))
    alone = [judge(mappings, frames([chain])) for chain in chains]
    assert together.files == [file for one in alone for file in one.files]
    assert together.real.tolist() == [real for one in alone for real in one.real.tolist()]
    for chain, judged in zip(chains, alone, strict=True):
        user = [at for at, (space, _) in enumerate(chain) if space > 1]
        assert all(judged.real[at] for at in range(len(chain)) if at not in user[1:])
