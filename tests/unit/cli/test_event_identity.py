"""The identity of an event follows from its attr, in every verb alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from perfkeep.abi.perf_event import Attr, Hardware, Sample, Software, Type
from perfkeep.cli.main import main
from perfkeep.testing.assembler import Assembler, file_event, perf_file

PLAIN = Assembler(id=10, sample_type=Sample.IP | Sample.TID | Sample.TIME)
CHAINS = Sample.IDENTIFIER | Sample.IP | Sample.TID | Sample.TIME | Sample.CALLCHAIN
USER = 2**64 - 512


def said(capfd: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(list(arguments)) == 0
    return capfd.readouterr().out.splitlines()


def test_cycles_of_one_kind_of_cpus_are_cpu_time(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "hybrid.data"
    attr = replace(PLAIN.attr, type=Type.HARDWARE, config=0x4_0000_0000)
    samples = [PLAIN.sample(time, pid=200, tid=200) for time in (10, 11)]
    records = [PLAIN.comm(200, 200, b"worker"), *samples]
    file.write_bytes(perf_file([file_event("cpu_core/cycles:Pu/", attr)], records))
    row = said(capfd, "report", str(file))[1].split()
    assert row == ["100.0%", "worker", "200", "2"]


def test_the_default_event_is_the_one_that_shows_cpu_time(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "two.data"
    cycles, faults = Assembler(id=10, sample_type=CHAINS), Assembler(id=20, sample_type=CHAINS)
    events = [
        file_event("cycles:u", replace(cycles.attr, type=Type.HARDWARE), 10),
        file_event("page-faults:u", replace(faults.attr, config=Software.PAGE_FAULTS), 20),
    ]
    chain = (USER, 0x1000)
    records = [cycles.sample(time, ip=0x1000, callchain=chain) for time in (10, 11)]
    records += [faults.sample(time, ip=0x1000, callchain=chain) for time in range(20, 25)]
    file.write_bytes(perf_file(events, records))
    assert said(capfd, "report", str(file), "--by", "comm")[0] == "2 samples of cycles:u"


@pytest.mark.parametrize(
    ("attr", "generic"),
    [
        (Attr(Type.HARDWARE, 0xA_0000_0001), (Type.HARDWARE, Hardware.INSTRUCTIONS)),
        (Attr(Type.HW_CACHE, 0xA_0001_0002), (Type.HW_CACHE, 0x1_0002)),
        (Attr(Type.RAW, 0xA_0000_0001), (Type.RAW, 0xA_0000_0001)),
    ],
)
def test_only_generic_events_name_a_pmu_in_their_config(
    attr: Attr, generic: tuple[int, int]
) -> None:
    assert attr.generic == generic
