"""No name of a recording takes a word away from stock perf, and each is found by the names shown."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from perfkeep.abi.perf_event import Attr
from perfkeep.broker.registry import KindOfEvent, Recording
from perfkeep.broker.sysfs import SysfsView
from perfkeep.testing.requirements import perf_tool, requires, root, tracefs
from perfkeep.wire.messages import Kind, Owner, Ring, Target

pytestmark = requires(perf_tool, tracefs, root)

DEVICES = Path("bus/event_source/devices")
#: Words of perf's parser, and names that are hard to write.
WORDS = ["cycles", "instructions", "branch", "LLC", "L2", "dTLB", "node", "load", "stores", "prefetch", "refs", "ops", "misses", "mem", "cpu", "config", "config1", "name", "period", "freq", "time", "raw", "branch_type", "call-graph", "no-inherit", "percore", "id", "lenient", "persistent", "u", "k", "pp", "r1a8", "metrics", "software", "hardware", "x-sched", "sched-x", "a.b", "2x", "x.unit", "x.scale", "Flight", "flight", "flight-1", "FLIGHT"]  # fmt: skip
#: Events in one run of perf.
CHUNK = 60


def known_events() -> list[str]:
    """All that `perf list` prints."""
    command = ["perf", "list", "--raw-dump"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sorted({event for event in printed.split() if not event.startswith("persistent/")})


def understood(events: Sequence[str], sysfs: Path | None) -> set[str]:
    """The events that perf's parser takes."""
    if not events:
        return set()
    environment = os.environ | ({} if sysfs is None else {"SYSFS_PATH": str(sysfs)})
    options = [word for event in events for word in ("-e", event)]
    done = subprocess.run(
        ["perf", "record", "--dry-run", "-o", "/dev/null", *options],
        capture_output=True, env=environment, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return set(events)
    half = len(events) // 2
    if not half:
        return set()
    return understood(events[:half], sysfs) | understood(events[half:], sysfs)


def all_understood(events: Sequence[str], sysfs: Path | None) -> set[str]:
    chunks = [events[start : start + CHUNK] for start in range(0, len(events), CHUNK)]
    return {event for chunk in chunks for event in understood(chunk, sysfs)}


def recording(id: int, name: str) -> Recording:
    """One of two kinds."""
    result = Recording(id, name, Owner(0, 0, 1, ""), Ring("backward", 65536), Target(), 0)
    for kind, event in enumerate(("cpu-clock", "sched:sched_switch")):
        result.kinds[id + kind] = KindOfEvent(id + kind, Kind(event, event, Attr().pack()))
    return result


@pytest.fixture(scope="module")
def events() -> list[str]:
    names = known_events()
    assert "sched:sched_switch" in names and len(names) > 500
    return names


@pytest.fixture(scope="module")
def sysfs(events: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sysfs with all that /sys has, and a recording for each word of `perf list`."""
    top = tmp_path_factory.mktemp("sysfs")
    folder, real = top, Path("/sys")
    for part in [*DEVICES.parts, ""]:
        for path in real.iterdir():
            if path.name not in (part, "persistent"):
                (folder / path.name).symlink_to(path)
        if part:
            folder, real = folder / part, real / part
            folder.mkdir()
    parts = {part for event in events for part in re.split(r"[:/,=]", event) if part}
    names = [*WORDS, *sorted(parts - set(WORDS))]
    view = SysfsView(str(top / DEVICES))
    view.root = str(top / DEVICES / "persistent")
    Path(view.root, "format").mkdir(parents=True)
    Path(view.root, "events").mkdir()
    Path(view.root, "type").write_text("1886086512\n")
    Path(view.root, "format/id").write_text("config:0-63\n")
    Path(view.root, "format/lenient").write_text("config1:0\n")
    for number, name in enumerate(names):
        view.update(recording(1 + 2 * number, name[:64]))
    assert len(list(Path(view.root, "events").iterdir())) >= 2 * len(names)
    return top


def test_every_event_that_perf_lists_is_understood_as_before(
    events: list[str], sysfs: Path
) -> None:
    before = all_understood(events, None)
    assert len(before) > 500
    assert before - all_understood(sorted(before), sysfs) == set()


def test_every_name_of_a_recording_is_understood(sysfs: Path) -> None:
    names = sorted(path.name for path in (sysfs / DEVICES / "persistent/events").iterdir())
    assert {"Flight", "Flight.cpu_clock", "sched.cpu_clock", "persistent.cpu_clock"} <= set(names)
    assert "sched" not in names
    arguments = [f"persistent/{name}/" for name in names]
    assert set(arguments) - all_understood(arguments, sysfs) == set()
