"""A machine that the tests do not run on: PMUs in a made-up sysfs, tracepoints in a made-up
tracefs."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfkeep.kernel import pmus, tracefs

FILES = {
    "cpu/type": "4",
    "cpu/format/event": "config:0-7,32-35",
    "cpu/format/umask": "config:8-15",
    "cpu/format/inv": "config:23",
    "cpu/format/ldlat": "config1:0-15",
    "cpu/format/frontend": "config3:0-23",
    "cpu/format/strange": "acr_mask:0-63",
    "cpu/events/cpu-cycles": "event=0x3c",
    "cpu/events/mem-loads": "event=0xcd,umask=0x1,ldlat=3",
    "cpu/events/slots": "event=0x00,umask=0x4,period=2000003",
    "cpu/events/slots.scale": "1e-6",
    "uncore_imc_0/type": "23",
    "uncore_imc_0/cpumask": "0",
    "uncore_imc_0/format/event": "config:0-7",
    "uncore_imc_0/events/reads": "event=0x04",
    "uncore_imc_1/type": "24",
    "uncore_imc_1/cpumask": "0,18",
    "uncore_imc_1/format/event": "config:0-7",
    "uncore_imc_1/events/reads": "event=0x04",
    "hv_24x7/type": "30",
    "hv_24x7/format/domain": "config:0-3",
    "hv_24x7/format/offset": "config:32-63",
    "hv_24x7/events/cycles_of": "domain=?,offset=0x98",
    "software/type": "1",
    "uprobe/type": "8",
    "uprobe/format/retprobe": "config:0",
    "kprobe/type": "7",
    "kprobe/format/retprobe": "config:0",
}

TRACEPOINTS = {
    "sched:sched_switch": 372,
    "sched:sched_wakeup": 374,
    "sched:sched_wakeup_new": 373,
    "irq:softirq_entry": 140,
}


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/sys/bus/event_source/devices of a big Intel machine, with a guest of IBM's."""
    folder = tmp_path / "devices"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    monkeypatch.setattr(pmus, "DEVICES", folder)
    return folder


@pytest.fixture
def tracing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tracefs with four tracepoints."""
    folder = tmp_path / "tracing"
    for name, number in TRACEPOINTS.items():
        event = folder / "events" / name.replace(":", "/")
        event.mkdir(parents=True)
        (event / "id").write_text(f"{number}\n")
        (event / "format").write_text(f"name: {name}\nID: {number}\nformat:\n")
    (folder / "events/enable").write_text("0\n")
    (folder / "events/sched/filter").write_text("none\n")
    (folder / "events/sched/no_id").mkdir()
    monkeypatch.setattr(tracefs, "PLACES", (str(folder), str(tmp_path / "nothing")))
    return folder
