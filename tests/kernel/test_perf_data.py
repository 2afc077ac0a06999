"""Real rings, written as perf.data: stock perf reads the file and has nothing to complain about."""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import pytest

from perfkeep.abi.perf_data import Feature
from perfkeep.abi.perf_event import (
    DATA_HEAD_OFFSET,
    Attr,
    ClockId,
    Flag,
    Ioctl,
    Sample,
    Software,
    Type,
)
from perfkeep.abi.records import Record
from perfkeep.broker.rings import pieces
from perfkeep.formats import perf_data
from perfkeep.formats.perf_data import Coverage, EventDesc, PerfData, RingCopy, Window
from perfkeep.kernel import cpus, procfs, tracefs
from perfkeep.kernel.perf_fd import event_id
from perfkeep.kernel.syscalls import perf_event_open
from perfkeep.records import summary
from perfkeep.records.sample import Layout
from perfkeep.testing import requirements as needs
from perfkeep.testing.load import heartbeat
from support.caller import CALLS, Callers
from support.commands import perf
from support.waiting import Eventually

pytestmark = needs.requires(needs.perf_events, needs.tracefs, needs.perf_tool, needs.root)

COMMAND = ["perfkeep", "snapshot", "a name", "-o", "x.data"]
_FIELDS = Sample.IDENTIFIER | Sample.TID | Sample.TIME | Sample.CPU
_FLAGS = Flag.DISABLED | Flag.SAMPLE_ID_ALL | Flag.USE_CLOCKID
Kind = Literal["backward", "forward"]
_MAX_RECORD = 256 + 8 * 135 + 8192


def cpu_clock() -> EventDesc:
    attr = Attr(
        type=Type.SOFTWARE,
        config=Software.CPU_CLOCK,
        sample_period=1000,
        sample_type=_FIELDS | Sample.IP | Sample.PERIOD | Sample.CALLCHAIN,
        flags=_FLAGS | Flag.FREQ,
        clockid=ClockId.MONOTONIC,
    )
    return EventDesc("cpu-clock", attr, {}, None)


def tracepoint(system: str, name: str, call_chains: bool = True) -> EventDesc:
    found = tracefs.tracepoint(system, name)
    # perf script -F ip,sym refuses call chains of events that do not record their address.
    chain = Sample.CALLCHAIN | Sample.IP if call_chains else Sample(0)
    attr = Attr(
        type=Type.TRACEPOINT,
        config=found.id,
        sample_period=1,
        sample_type=_FIELDS | Sample.RAW | chain,
        flags=_FLAGS,
        clockid=ClockId.MONOTONIC,
    )
    return EventDesc(f"{system}:{name}", attr, {}, (system, name, found.id, found.format))


@dataclass
class Recorded:
    """Events that run on every CPU, and their rings."""

    events: list[EventDesc]
    kind: Kind
    size: int
    rings: dict[int, mmap.mmap] = field(default_factory=dict)
    fds: list[int] = field(default_factory=list)

    def head(self, cpu: int) -> int:
        return int(struct.unpack_from("=Q", self.rings[cpu], DATA_HEAD_OFFSET)[0])

    def written(self, cpu: int) -> int:
        head = self.head(cpu)
        return -head % 2**64 if self.kind == "backward" else head

    def copies(self) -> Iterator[RingCopy]:
        """As the broker makes them: straight, from data_head on."""
        for cpu, ring in self.rings.items():
            before = self.head(cpu)
            area = ring[mmap.PAGESIZE :]
            parts = pieces(before, self.size, self.kind == "backward")
            view = memoryview(b"".join(area[start:end] for start, end in parts))
            yield RingCopy(cpu, view, before, self.head(cpu), self.kind, self.size, _MAX_RECORD)

    def wait_until(self, bytes_written: int) -> None:
        """Until every ring has seen so much."""
        deadline = time.monotonic() + 30
        while min(self.written(cpu) for cpu in self.rings) < bytes_written:
            assert time.monotonic() < deadline, f"the rings stay below {bytes_written} bytes"
            os.sched_yield()

    def write(self, path: Path, window: Window = Window()) -> Coverage:  # noqa: B008
        with open(path, "w+b") as out:
            return perf_data.write_snapshot(
                out, self.events, self.copies(), procfs.scan(), window, COMMAND
            )


@contextmanager
def recorded(
    *events: EventDesc, kind: Kind = "backward", size: int = 1 << 20, pid: int = -1
) -> Iterator[Recorded]:
    """Every event on every CPU, of one task or of all; the first owns the CPU's ring, the others are
    pointed at it.
    """
    backward = Flag.WRITE_BACKWARD if kind == "backward" else Flag(0)
    events = tuple(
        EventDesc(one.name, one.attr.with_flags(backward), {}, one.tracepoint) for one in events
    )
    made = Recorded(list(events), kind, size)
    with ExitStack() as stack:
        for cpu in cpus.online():
            owner = None
            for event in events:
                fd = stack.enter_context(perf_event_open(event.attr, pid, cpu)).fileno()
                event.ids[cpu] = [event_id(fd)]
                if owner is None:
                    owner = fd
                    ring = mmap.mmap(fd, size + mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)
                    made.rings[cpu] = stack.enter_context(ring)
                else:
                    fcntl.ioctl(fd, Ioctl.SET_OUTPUT, owner)
                made.fds.append(fd)
        for fd in made.fds:
            fcntl.ioctl(fd, Ioctl.ENABLE, 0)
        yield made


@contextmanager
def load() -> Iterator[None]:
    with ExitStack() as stack:
        for cpu in cpus.online():
            stack.enter_context(heartbeat(cpu))
        yield


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two events on all CPUs for a while, in one file."""
    path = tmp_path_factory.mktemp("data") / "x.data"
    with recorded(tracepoint("sched", "sched_switch"), cpu_clock()) as made, load():
        made.wait_until(300_000)
        coverage = made.write(path)
    assert coverage.complete
    return path


@cache
def script(path: Path, fields: str) -> list[str]:
    return perf("script", "-i", str(path), "-F", fields).splitlines()


def read(path: Path) -> PerfData:
    return perf_data.read(str(path))


def test_perf_script_tells_the_events_apart_and_sees_every_sample(snapshot: Path) -> None:
    names = [line.strip().rstrip(":") for line in script(snapshot, "event")]
    got = read(snapshot)
    kinds = {id: event.name for event in got.events for id in event.all_ids}
    layout = Layout(got.events[0].attr)
    ours = [kinds[layout.id(r) or 0] for kind, r in got.records() if kind == Record.SAMPLE]
    assert {name: names.count(name) for name in set(names)} == {
        name: ours.count(name) for name in set(ours)
    }
    assert set(ours) == {"sched:sched_switch", "cpu-clock"}


def test_perf_script_prints_times_in_order(snapshot: Path) -> None:
    times = [float(line.strip().rstrip(":")) for line in script(snapshot, "time")]
    assert len(times) > 1000 and times == sorted(times)
    first, last = read(snapshot).sample_time or (0, 0)
    assert times[0] == pytest.approx(first / 1e9, abs=2e-6)
    assert times[-1] == pytest.approx(last / 1e9, abs=2e-6)


def test_perf_script_decodes_the_fields_of_tracepoints(snapshot: Path) -> None:
    lines = [
        line
        for line in perf("script", "-i", str(snapshot), "-G").splitlines()
        if "sched:sched_switch:" in line
    ]
    told = re.compile(
        r"prev_comm=\S.* prev_pid=\d+ prev_prio=\d+ prev_state=\S+ ==> next_comm=\S.* next_pid=\d+"
    )
    assert lines and all(told.search(line) for line in lines)
    assert any("next_comm=python" in line for line in lines)


def test_perf_script_names_processes_and_cpus(snapshot: Path) -> None:
    lines = script(snapshot, "comm,pid,tid,cpu")
    assert any(re.match(r"\s*python\S*\s+\d+/\d+\s+\[00\d\]", line) for line in lines)
    assert {int(c) for line in lines for c in re.findall(r"\[(\d+)\]", line)} == set(cpus.online())


def test_perf_script_names_functions_of_the_kernel_and_of_libraries(snapshot: Path) -> None:
    lines = script(snapshot, "event,ip,sym,dso")
    assert any("__schedule" in line and "[kernel.kallsyms]" in line for line in lines)
    assert any(".so" in line or "/python" in line for line in lines)


def test_perf_report_shows_both_events_without_a_warning(snapshot: Path) -> None:
    text = perf("report", "--stdio", "-i", str(snapshot), "--sort", "comm", "-g", "none")
    assert "of event 'sched:sched_switch'" in text and "of event 'cpu-clock'" in text
    assert re.search(r"\d+\.\d+%\s+python", text)


def test_perf_evlist_shows_the_attrs(snapshot: Path) -> None:
    text = perf("evlist", "-v", "-i", str(snapshot))
    switch, clock = [line for line in text.splitlines() if not line.startswith("#")]
    assert switch.startswith("sched:sched_switch: type: 2,") and "write_backward: 1" in switch
    assert clock.startswith("cpu-clock: type: 1,") and "freq: 1" in clock
    assert "sample_type: IP|TID|TIME|CALLCHAIN|CPU|PERIOD|IDENTIFIER" in clock


def test_perf_buildid_list_has_the_kernel_and_the_libraries(snapshot: Path) -> None:
    lines = perf("buildid-list", "-i", str(snapshot)).splitlines()
    ids = {path: id for id, _, path in (line.partition(" ") for line in lines)}
    assert ids["[kernel.kallsyms]"] == perf("buildid-list", "-k").strip()
    libc = next(path for path in ids if "/libc" in path)
    # perf's own reader of ELF files agrees.
    assert perf("buildid-list", "-i", libc).split()[0] == ids[libc]


def test_perf_prints_where_when_and_by_what_the_file_was_made(snapshot: Path) -> None:
    header = perf("script", "--header-only", "-i", str(snapshot))
    names = os.uname()
    for line in (
        f"# hostname : {names.nodename}",
        f"# os release : {names.release}",
        f"# arch : {names.machine}",
        f"# nrcpus online : {len(cpus.online())}",
        "# cmdline : perfkeep snapshot a name -o x.data",
        "# clockid: monotonic (1)",
    ):
        assert line in header
    assert re.search(r"# perf version : perfkeep \S+", header)
    assert re.search(r"# reference time: .* = \d+\.\d+ \(monotonic\)", header)
    # What we could not say is not there, rather than wrong.
    assert re.search(r"# cpudesc : \S+", header) and re.search(r"# total memory : \d+ kB", header)


def test_our_own_reader_has_the_same_facts(snapshot: Path) -> None:
    got = read(snapshot)
    assert got.command == COMMAND
    assert got.text(Feature.HOSTNAME) == os.uname().nodename
    assert [event.name for event in got.events] == ["sched:sched_switch", "cpu-clock"]
    sources = [summary.Source(e.name, e.attr, e.all_ids) for e in got.events]
    rows = summary.table(sources, got.records())
    assert any(row.comm.startswith("python") and sum(row.samples) for row in rows)
    assert sum(row.share or 0 for row in rows) == pytest.approx(1)


def test_a_ring_that_has_wrapped_many_times_is_read_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "x.data"
    with recorded(tracepoint("sched", "sched_switch"), cpu_clock(), size=1 << 18) as made, load():
        made.wait_until(3 << 18)
        coverage = made.write(path)
    assert all(cpu.records > 100 and cpu.bytes > 1 << 17 for cpu in coverage.cpus)
    times = [float(line.strip().rstrip(":")) for line in script(path, "time")]
    assert len(times) == sum(cpu.records for cpu in coverage.cpus) and times == sorted(times)


def test_a_wrapped_forward_ring_is_read_from_its_first_whole_record(tmp_path: Path) -> None:
    path = tmp_path / "x.data"
    events = tracepoint("sched", "sched_switch"), cpu_clock()
    with recorded(*events, kind="forward", size=1 << 18) as made, load():
        made.wait_until(3 << 18)
        coverage = made.write(path)
    assert all(cpu.records > 100 and cpu.bytes > 1 << 17 for cpu in coverage.cpus)
    assert len(script(path, "time")) == sum(cpu.records for cpu in coverage.cpus)


def test_a_window_holds_what_lies_in_it_and_says_whether_it_was_reached(tmp_path: Path) -> None:
    path = tmp_path / "x.data"
    with (
        recorded(tracepoint("sched", "sched_switch", call_chains=False), size=1 << 23) as made,
        load(),
    ):
        made.wait_until(100_000)
        since = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        made.wait_until(max(map(made.written, made.rings)) + 100_000)
        until = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        made.wait_until(max(map(made.written, made.rings)) + 50_000)
        coverage = made.write(path, Window(since, until))
    assert coverage.complete
    times = [float(line.strip().rstrip(":")) for line in script(path, "time")]
    assert since / 1e9 - 1e-5 < times[0] < times[-1] < until / 1e9 + 1e-5
    assert all(since <= (cpu.first_ns or 0) < since + 10**8 for cpu in coverage.cpus)


def test_a_beginning_that_was_overwritten_is_not_reached(tmp_path: Path) -> None:
    with recorded(tracepoint("sched", "sched_switch"), size=1 << 17) as made, load():
        since = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        made.wait_until(3 << 17)
        coverage = made.write(tmp_path / "x.data", Window(since))
    assert not coverage.complete
    assert not any(cpu.reached for cpu in coverage.cpus)


def test_no_sample_is_missing_between_two_snapshots(
    tmp_path: Path, caller: Callers, eventually: Eventually
) -> None:
    process, numbers = caller(), list[list[int]]()

    def grows() -> bool:
        path = tmp_path / f"{len(numbers)}.data"
        made.write(path)
        numbers.append(process.numbers_of(read(path)))
        return len(set(map(len, numbers))) > 2

    # Numbered calls of one task, a few hundred in a second: the rings hold a minute of them.
    system, name = CALLS.split(":")
    calls = tracepoint(system, name, call_chains=False)
    with recorded(calls, pid=process.pid) as made, process.calling(every_us=2000):
        eventually(grows)
    for present in numbers:
        assert present == list(range(1, len(present) + 1))


def test_files_of_stock_perf_record_are_read(tmp_path: Path) -> None:
    path = tmp_path / "stock.data"
    done = subprocess.run(
        ["perf", "record", "-q", "-e", "sched:sched_switch", "-e", "cpu-clock", "-a", "-g",
         "-o", str(path), "--", "sleep", "0.1"], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    got = read(path)
    assert [event.name for event in got.events][:2] == ["sched:sched_switch", "cpu-clock"]
    assert got.text(Feature.HOSTNAME) == os.uname().nodename
    assert got.command[1:3] == ["record", "-q"]
    layouts = {id: Layout(event.attr) for event in got.events for id in event.all_ids}
    any_layout = Layout(got.events[0].attr)
    samples = [r for kind, r in got.records() if kind == Record.SAMPLE]
    decoded = [layouts[any_layout.id(r) or 0].decode(r) for r in samples]
    assert len(decoded) == len(script(path, "time"))
    assert all(one.callchain and one.time for one in decoded)
