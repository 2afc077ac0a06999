"""Kernel frames that are redacted for a guest are called [kernel, hidden], and no user frame is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from perfkeep.abi.perf_event import PERF_CONTEXT_KERNEL, PERF_CONTEXT_USER, Sample
from perfkeep.abi.records import MISC_CPUMODE_KERNEL, MISC_CPUMODE_USER
from perfkeep.testing.assembler import Assembler, file_event, perf_file
from support.commands import Cli, cli

cli = pytest.fixture(cli)

FIELDS = Sample.IP | Sample.TID | Sample.TIME


def written(path: Path, event: Assembler, *samples: bytes) -> Path:
    path.write_bytes(perf_file([file_event("cpu-clock", event.attr)], samples))
    return path


def moded(sample: bytes, mode: int) -> bytes:
    return sample[:4] + mode.to_bytes(2, "little") + sample[6:]


def folded(cli: Cli, path: Path) -> list[str]:
    return cli("export", path, "--to", "folded", "-o", "-", "--samples").out.splitlines()


def test_hidden_frames_of_a_chain_are_named_so(cli: Cli, tmp_path: Path) -> None:
    event = Assembler(sample_type=FIELDS | Sample.CALLCHAIN)
    chain = (PERF_CONTEXT_KERNEL, 0, 0, PERF_CONTEXT_USER, 0x1000)
    sample = moded(event.sample(1, callchain=chain), MISC_CPUMODE_KERNEL)
    path = written(tmp_path / "x.data", event, sample)
    assert folded(cli, path) == [":1;0x1000;[kernel, hidden];[kernel, hidden] 1"]
    found = json.loads(cli("script", path, "--json").out)["callchain"]
    assert [frame["sym"] for frame in found] == ["[kernel, hidden]"] * 2 + [""]
    shown = [line.split(maxsplit=1) for line in cli("script", path).out.splitlines()[1:3]]
    assert shown == [["0", "[kernel, hidden] ([kernel.kallsyms])"]] * 2
    assert "[kernel, hidden]" in cli("report", path, "--by", "sym").out


@pytest.mark.parametrize(
    ("mode", "name"), [(MISC_CPUMODE_KERNEL, "[kernel, hidden]"), (MISC_CPUMODE_USER, "0x0")]
)
def test_the_mode_of_a_sample_says_whether_its_address_is_hidden(
    cli: Cli, tmp_path: Path, mode: int, name: str
) -> None:
    event = Assembler(sample_type=FIELDS)
    path = written(tmp_path / "x.data", event, moded(event.sample(1, ip=0), mode))
    assert folded(cli, path) == [f":1;{name} 1"]
    assert (name in cli("script", path).out) == (mode == MISC_CPUMODE_KERNEL)
