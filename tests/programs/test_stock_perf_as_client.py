"""Stock perf uses persistent events by name, under `perfkeep exec`, and disturbs none of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import perfkeep
from perfkeep.kernel import cpus
from perfkeep.testing.load import heartbeat
from perfkeep.testing.requirements import (
    perf_events,
    perf_tool,
    requires,
    root,
    seccomp_notification,
    tracefs,
    uprobes,
)
from support.commands import PERFKEEP
from support.program import EXEC, SOFTWARE, Launch
from support.waiting import Eventually

pytestmark = requires(perf_events, tracefs, perf_tool, root, seccomp_notification)

ONLINE = cpus.online()
TWO_CPUS = pytest.mark.skipif(len(ONLINE) < 2, reason="needs two CPUs that are online")

#: A program that takes about as many seconds as it is told, without a shell.
WAIT = [sys.executable, "-c", "import select, sys; select.select([], [], [], float(sys.argv[1]))"]


def perf(*arguments: str, code: int = 0) -> str:
    """What `perf` prints under `perfkeep exec`, both streams."""
    done = subprocess.run(
        [*EXEC, "perf", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def flight(instance: Path) -> Iterator[perfkeep.Recording]:
    """A sampling event with call chains, and a tracepoint beside it in another recording."""
    recording = perfkeep.start("flight", ["cpu-clock/freq=499/"], call_chains=True, ring="1M")
    perfkeep.start("switches", ["sched:sched_switch"], ring="1M")
    yield recording
    assert recording.info.state == "running"


def value(name: str, cpu: int | None = None) -> int:
    per_cpu = perfkeep.Recording(name).stat().events[0].per_cpu
    return sum(one.value for one in per_cpu if cpu in (None, one.cpu))


def counts(said: str) -> dict[str, int]:
    """Event → count, of `perf stat -x ,`."""
    rows = [line.split(",") for line in said.splitlines() if line.count(",") > 3]
    return {row[2]: int(row[0]) for row in rows if row[0].isdecimal()}


def warnings(errors: str) -> str:
    """The warnings of perf about a file, but for samples that it was itself too slow to write: on a busy
    machine it always may be."""
    return re.sub(r"Warning:\nProcessed .* lost \d+ chunks!\n\nCheck .*\n+", "", errors)


def samples(path: Path) -> dict[str, int]:
    """Event → samples, as stock perf reads the file, alone."""
    done = subprocess.run(
        ["perf", "script", "-i", str(path), "-F", "event", "-G"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert warnings(done.stderr) == ""
    names = [line.strip().rstrip(":") for line in done.stdout.splitlines() if line.strip()]
    return {name: names.count(name) for name in set(names)}


# --- perf list --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--no-mount"]])
def test_perf_list_shows_the_events(flight: perfkeep.Recording, options: list[str]) -> None:
    command = [*PERFKEEP, "exec", *options, "--", "perf", "list", "persistent"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"persistent/(\S+)/", said) == [
        "flight.cpu_clock", "flight", "switches.sched_sched_switch", "switches",
    ]  # fmt: skip


# --- perf stat --------------------------------------------------------------------------------


def test_perf_stat_counts_what_perfkeep_counts(flight: perfkeep.Recording) -> None:
    before = value("flight")
    said = perf("stat", "-x", ",", "-e", "persistent/flight/", "-a", "true")
    assert before < counts(said)["persistent/flight/"] < value("flight")


def test_perf_stat_on_one_cpu_counts_that_cpu(flight: perfkeep.Recording) -> None:
    cpu = ONLINE[-1]
    before = value("flight", cpu)
    said = perf("stat", "-x", ",", "-e", "persistent/flight/", "-C", str(cpu), "true")
    assert before < counts(said)["persistent/flight/"] < value("flight", cpu)


@TWO_CPUS
def test_an_event_that_lives_on_some_cpus_only_does_not_make_perf_fail(
    instance: Path, tmp_path: Path
) -> None:
    perfkeep.start("one", ["cpu-clock/freq=499/"], cpus=[ONLINE[0]], ring="64K")
    said = perf("stat", "-x", ",", "-A", "-e", "persistent/one/", "-a", "true")
    per_cpu = {
        line.split(",")[0]: line.split(",")[1] for line in said.splitlines() if "CPU" in line
    }
    assert int(per_cpu[f"CPU{ONLINE[0]}"]) > 0
    assert per_cpu[f"CPU{ONLINE[-1]}"] == "0"
    file = tmp_path / "perf.data"
    perf("record", "-o", str(file), "-e", "persistent/one/", "-a", *WAIT, "0.2")
    assert samples(file)["persistent/one/"] > 10


def test_the_kinds_of_a_recording_are_counted_apart(instance: Path) -> None:
    perfkeep.start("two", ["cpu-clock/freq=99/", "context-switches"], ring="64K")
    said = perf("stat", "-x", ",", "-e", "persistent/two.cpu_clock/",
                "-e", "persistent/two.context_switches/", "-a", "true")  # fmt: skip
    seen = counts(said)
    assert seen["persistent/two.cpu_clock/"] > 100 * seen["persistent/two.context_switches/"] > 0


# --- perf record ------------------------------------------------------------------------------


def recorded(tmp_path: Path, *options: str) -> Path:
    file = tmp_path / "perf.data"
    perf("record", "-o", str(file), *options, "-a", *WAIT, "0.3")
    return file


@pytest.mark.parametrize("options", [[], ["--overwrite"], ["-m", "16"], ["-k", "CLOCK_MONOTONIC"]])
def test_perf_record_samples_with_call_chains(
    flight: perfkeep.Recording, tmp_path: Path, options: list[str]
) -> None:
    file = recorded(tmp_path, *options, "-e", "persistent/flight/")
    assert samples(file)["persistent/flight/"] > 100
    said = subprocess.run(
        ["perf", "script", "-i", str(file)], capture_output=True, text=True, check=True
    )
    assert said.stderr == ""
    assert re.search(r"persistent/flight/: *\n(\s+[0-9a-f]+ \w.*\n){2,}", said.stdout)
    report = subprocess.run(
        ["perf", "report", "--stdio", "-i", str(file)], capture_output=True, text=True, check=True
    )
    assert "of event 'persistent/flight/'" in report.stdout


def test_perf_record_samples_a_tracepoint_and_convert_gives_its_fields(
    flight: perfkeep.Recording, tmp_path: Path
) -> None:
    with heartbeat(0):
        file = recorded(tmp_path, "-e", "persistent/switches/")
    assert samples(file)["persistent/switches/"] > 100
    whole = tmp_path / "whole.data"
    subprocess.run([*PERFKEEP, "convert", str(file), "-o", str(whole)], check=True)
    said = subprocess.run(
        ["perf", "script", "-i", str(whole)], capture_output=True, text=True, check=True
    )
    assert warnings(said.stderr) == ""
    assert "prev_comm=" in said.stdout and "sched:sched_switch:" in said.stdout


def test_perf_record_of_a_command_records_that_command(
    flight: perfkeep.Recording, tmp_path: Path
) -> None:
    file = tmp_path / "perf.data"
    busy = [sys.executable, "-I", "-S", "-c", "sum(range(20_000_000))"]
    perf("record", "-o", str(file), "-e", "persistent/flight/", *busy)
    said = subprocess.run(
        ["perf", "script", "-i", str(file), "-F", "comm", "-G"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = said.stdout.split()
    assert len(names) > 20 and all(name.startswith(("python", "perf")) for name in names)


@requires(uprobes)
def test_perf_records_a_probe(instance: Path, tmp_path: Path) -> None:
    with open("/bin/true", "rb") as binary:
        begins = int.from_bytes(binary.read(32)[24:], "little")  # e_entry
    perfkeep.start("begin", [f"uprobe:/bin/true:{begins:#x}"], ring="64K")
    file = tmp_path / "perf.data"
    perf("record", "-o", str(file), "-e", "persistent/begin/", "-a", "/bin/true")
    assert samples(file) == {"persistent/begin/": 1}


def test_a_filter_holds_for_what_perf_records(instance: Path, tmp_path: Path) -> None:
    with heartbeat(0) as pid:
        perfkeep.start("mine", [("sched:sched_switch", f"prev_pid == {pid}")], ring="64K")
        file = recorded(tmp_path, "-e", "persistent/mine/")
    said = subprocess.run(
        ["perf", "script", "-i", str(file), "-F", "tid"], capture_output=True, text=True, check=True
    )
    assert set(said.stdout.split()) == {str(pid)}


def test_several_kinds_of_one_recording_are_recorded_apart(instance: Path, tmp_path: Path) -> None:
    perfkeep.start("two", ["cpu-clock/freq=499/", "sched:sched_switch"], ring="64K")
    with heartbeat(0):
        file = recorded(
            tmp_path, "-e", "persistent/two.cpu_clock/", "-e", "persistent/two.sched_sched_switch/"
        )
    assert all(number > 50 for number in samples(file).values()) and len(samples(file)) == 2


def test_the_very_event_is_recorded_by_its_id(launch: Launch, tmp_path: Path) -> None:
    """Another process opened it and has gone; perf maps the ring that it left. perf reads no
    event that was opened with less than it asks for itself: all these fields are its own."""
    client = launch()
    like_perf = ["period=1000000", "sample_type=0x101a7", "read_format=7", f"flags={1 << 18}"]
    id = client.ioctl(client.open(SOFTWARE, 0, 0, *like_perf), 0x2408)
    client.end()
    file = tmp_path / "perf.data"
    perf("record", "-o", str(file), "-e", f"persistent/id={id}/", "-C", "0", *WAIT, "0.3")
    assert samples(file)[f"persistent/id={id}/"] > 100
    assert perfkeep.recordings()[0].info.state == "running"


@TWO_CPUS
def test_whatever_an_ioctl_made_persistent_perf_can_count_and_record(
    launch: Launch, tmp_path: Path
) -> None:
    """perf stat takes an event without the times for one that was never counted."""
    client = launch()
    id = client.ioctl(client.open(SOFTWARE, 0, 0, "read_format=3"), 0x2408)
    said = perf("stat", "-x", ",", "-e", f"persistent/_{id}/", "-a", "true")
    assert counts(said)[f"persistent/_{id}/"] > 0
    assert samples(recorded(tmp_path, "-e", f"persistent/_{id}/"))[f"persistent/_{id}/"] > 100


# --- perf top ---------------------------------------------------------------------------------


def test_perf_top_shows_what_runs(flight: perfkeep.Recording, eventually: Eventually) -> None:
    master, slave = os.openpty()
    command = [*EXEC, "perf", "top", "--stdio", "-d", "1", "-e", "persistent/flight/"]
    with subprocess.Popen(command, stdin=slave, stdout=subprocess.PIPE, stderr=slave) as top:
        assert top.stdout is not None
        os.set_blocking(top.stdout.fileno(), False)
        said = b""

        def has_rows() -> bool:
            nonlocal said
            said += top.stdout.read() or b"" if top.stdout else b""
            return re.search(rb"\d+\.\d+%.*\[[k.]\]", said) is not None

        try:
            eventually(has_rows)
        finally:
            top.kill()
    os.close(master)
    os.close(slave)


# --- several at once --------------------------------------------------------------------------


def test_two_perfs_at_once_and_one_killed_leave_the_recording_untouched(
    flight: perfkeep.Recording, tmp_path: Path, eventually: Eventually
) -> None:
    files = [tmp_path / "a.data", tmp_path / "b.data"]
    running = [
        subprocess.Popen(
            [*EXEC, "perf", "record", "-q", "-o", str(file), "-e", "persistent/flight/", "-a"],
            stderr=subprocess.PIPE,
        )
        for file in files
    ]
    try:
        eventually(lambda: all(file.exists() and file.stat().st_size > 4096 for file in files))
        before = value("flight")
        running[0].kill()
        eventually(lambda: value("flight") > before + 10**8)
        running[1].send_signal(signal.SIGINT)
        running[1].wait(timeout=30)
    finally:
        for one in running:
            one.kill()
            one.communicate()
    assert samples(files[1])["persistent/flight/"] > 10
    with flight.snapshot(last="60s") as snapshot:
        assert snapshot.coverage.complete
    assert json.loads(
        subprocess.run(
            [*PERFKEEP, "ls", "--json"], capture_output=True, text=True, check=True
        ).stdout
    )
