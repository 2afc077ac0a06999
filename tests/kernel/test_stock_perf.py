"""The perf.data file of a snapshot, as stock perf reads it: without a word on stderr."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import perfkeep
from perfkeep.formats import perf_data
from perfkeep.symbols import build_id
from perfkeep.testing.load import heartbeat
from perfkeep.testing.requirements import perf_events, perf_tool, requires, root, tracefs
from support.commands import perf

pytestmark = requires(perf_events, tracefs, perf_tool, root)

# Sleeps and computes, so that both events have something to record, then waits.
BUSY = """
import hashlib, sys, time
end = time.monotonic() + 0.4
while time.monotonic() < end:
    hashlib.sha256(b"x" * 4096).digest()
    time.sleep(0.0002)
print("done", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def data(instance: Path, tmp_path: Path) -> Iterator[Path]:
    """A snapshot of sched_switch and cpu-clock, with call chains, of a busy process."""
    recording = perfkeep.start(
        "seen", ["sched:sched_switch", "cpu-clock/freq=999/"], call_chains=True, ring="1M"
    )
    command = [sys.executable, "-c", BUSY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        recording.snapshot(str(tmp_path / "seen.data"))
        busy.communicate()
    recording.claim()
    yield tmp_path / "seen.data"


def test_perf_script_prints_names_fields_and_kernel_symbols_in_time_order(data: Path) -> None:
    text = perf("script", "-i", str(data))
    assert "prev_comm=" in text and "==> next_comm=" in text
    assert re.search(r"^\s*[0-9a-f]+ (schedule|__schedule)\+0x", text, re.M)
    assert re.search(r"^python.* cpu-clock: *$", text, re.M) or "cpu-clock" in text
    times = [float(one) for one in re.findall(r"\[\d{3}\]\s+(\d+\.\d+):", text)]
    assert len(times) > 100 and times == sorted(times)
    # Processes that live are known by their name.
    assert re.search(r"^python\S*\s+\d+ \[", text, re.M)


def test_perf_script_resolves_user_code_by_the_mappings_of_the_snapshot(data: Path) -> None:
    text = perf("report", "--stdio", "-i", str(data), "--sort", "dso,sym", "-g", "none")
    assert re.search(r"%\s+lib\S+\.so\S*\s+\[\.\] [a-zA-Z_]", text)


def test_perf_evlist_tells_the_events_apart(data: Path) -> None:
    text = perf("evlist", "-v", "--input", str(data))
    first, second, beside = [line for line in text.splitlines() if not line.startswith("#")]
    assert first.startswith("sched:sched_switch: type: 2") and "RAW" in first
    assert second.startswith("cpu-clock: type: 1") and "freq: 1" in second
    assert "write_backward: 1" in first and "sample_id_all: 1" in first
    assert beside.startswith("dummy:u: type: 1") and "mmap2: 1" in beside and "task: 1" in beside


def test_perf_report_counts_both_events(data: Path) -> None:
    text = perf("report", "--stdio", "-i", str(data), "--sort", "comm", "-g", "none")
    assert re.search(r"Samples: \S+ +of event 'sched:sched_switch'", text)
    assert re.search(r"Samples: \S+ +of event 'cpu-clock'", text)
    assert "Total Lost Samples: 0" in text


def test_perf_finds_the_build_ids_of_kernel_and_files(data: Path) -> None:
    lines = [line.split(maxsplit=1) for line in perf("buildid-list", "-i", str(data)).splitlines()]
    found = {path: id for id, path in lines}
    kernel = build_id.in_notes(Path("/sys/kernel/notes").read_bytes())
    assert kernel is not None and found["[kernel.kallsyms]"] == kernel.hex()
    libc = next(path for path in found if "/libc.so" in path)
    ours = build_id.of_file(os.fsencode(libc))
    assert ours is not None and found[libc] == ours.hex()


def test_the_header_says_where_when_and_by_which_command(data: Path) -> None:
    text = perf("script", "--header-only", "-i", str(data))
    names = os.uname()
    assert f"# hostname : {names.nodename}" in text
    assert f"# os release : {names.release}" in text
    assert re.search(r"# cpudesc : \S", text) and re.search(r"# time of first sample : \d", text)
    assert f"# cmdline : {sys.argv[0]}" in text
    assert "clockid: monotonic (1)" in text


def test_every_sample_that_perf_prints_is_one_that_we_read(data: Path) -> None:
    from perfkeep.abi.records import Record

    ours = sum(kind == Record.SAMPLE for kind, _ in perf_data.read(str(data)).records())
    lines = perf("script", "-i", str(data), "-F", "event", "-G").splitlines()
    assert ours == sum(bool(line.strip()) for line in lines)


def test_samples_wake_nobody_up_but_once_in_a_ring(instance: Path) -> None:
    recording = perfkeep.start("quiet", ["sched:sched_switch"], ring="64K")
    id = recording.info.events[0].id
    poll, wakeups, deadline = select.poll(), 0, time.monotonic() + 1
    with heartbeat(0), perfkeep.reopen(id, 0) as event:
        poll.register(event.fileno(), select.POLLIN)
        before = event.read().value
        while (left := deadline - time.monotonic()) > 0:
            wakeups += bool(poll.poll(left * 1000))
        samples = event.read().value - before
    recording.claim()
    assert samples > 1000
    # At most at every half ring, and a sample takes more than 64 bytes.
    assert wakeups <= samples * 200 // (32 << 10) + 1


def test_a_file_of_stock_perf_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "perf.data"
    subprocess.run(
        ["perf", "record", "-q", "-e", "cpu-clock", "-o", str(path), "true"],
        check=True,
        capture_output=True,
    )
    got = perf_data.read(str(path))
    assert [event.name.split(":")[0] for event in got.events] == ["cpu-clock"]
    assert got.command[:2] == ["/usr/bin/perf", "record"] or "record" in got.command
    assert sum(1 for _ in got.records()) > 1
