"""The verbs, on real events: what they print, what they refuse, and what they leave."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import perfkeep
from perfkeep.cli import ls, status
from perfkeep.formats import perf_data
from perfkeep.kernel import cpus, privileges
from perfkeep.kernel.syscalls import mount, umount
from perfkeep.testing.requirements import cpu_hotplug, perf_events, requires, root, tracefs
from support.commands import Cli
from support.waiting import Eventually

pytestmark = [requires(perf_events, tracefs, root), pytest.mark.usefixtures("instance")]

EVENTS = ["-e", "sched:sched_switch", "-e", "cpu-clock/freq=99/"]


def test_a_recording_goes_through_its_whole_life(cli: Cli, tmp_path: Path) -> None:
    assert cli("start", "tour", *EVENTS, "--ring", "64K", "-g").code == 0
    (listed,) = cli("ls", "--json").json
    assert listed["name"] == "tour" and listed["state"] == "running"
    assert listed["ring"] == {"kind": "backward", "bytes_per_cpu": 65536, "overwrites": True}
    assert listed["owner"]["pid"] == os.getpid() and listed["owner"]["user"] == "root"
    assert [one["event"] for one in listed["events"]] == EVENTS[1::2]
    assert all(one["cpus"] == list(cpus.online()) for one in listed["events"])
    shown = cli("show", "tour", "--json").json
    assert shown == listed
    assert shown["target"] == {"pids": None, "cgroup": None, "program": None}
    table = cli("ls").out.splitlines()
    assert table[0].split()[:3] == ["NAME", "ID", "STATE"] and table[1].startswith("tour ")

    assert cli("disable", "tour").code == 0
    assert cli("show", "tour", "--json").json["state"] == "disabled"
    assert cli("enable", "tour").code == 0
    assert cli("show", "tour", "--json").json["state"] == "running"

    assert cli("add", "tour", "-e", "page-faults").code == 0
    assert cli("remove", "tour", "-e", "cpu-clock/freq=99/").code == 0
    names = [one["event"] for one in cli("show", "tour", "--json").json["events"]]
    assert names == ["sched:sched_switch", "page-faults"]

    file = tmp_path / "tour.data"
    taken = cli("snapshot", "tour", "-o", str(file))
    assert taken.code == 0 and f"written to {file}" in taken.out
    assert {event.name for event in perf_data.read(str(file)).events} >= {"sched:sched_switch"}
    reported = cli("report", str(file)).out
    assert "COMMAND" in reported
    assert "dummy" not in reported  # what tells of processes is no event of the recording's

    ended = cli("claim", "tour")
    assert (ended.code, ended.out) == (0, "tour has ended\n")
    assert cli("ls", "--json").json == [] and "no recordings" in cli("ls").out


def test_stat_sums_over_cpus(cli: Cli) -> None:
    cli("start", "counts", "-e", "cpu-clock", "--ring", "64K")
    got = cli("stat", "counts", "--json").json
    assert set(got) == {"name", "events"}
    (event,) = got["events"]
    fields = {"value", "time_enabled_ns", "time_running_ns", "lost"}
    rule = {"enabled", "unit", "counted", "estimate"}
    assert set(event) == {"id", "event", "per_cpu"} | fields | rule
    assert set(event["per_cpu"]) == {str(cpu) for cpu in cpus.online()}
    for field in fields:
        assert event[field] == sum(cpu[field] for cpu in event["per_cpu"].values())
    assert event["value"] > 0 and "cpu-clock" in cli("stat", "counts").out
    assert event["unit"] == "ns" and " msec  cpu-clock" in cli("stat", "counts").out


def test_status_names_both_processes_and_the_log(cli: Cli) -> None:
    got = cli("status", "--json").json
    assert set(got) == {
        "instance", "socket", "log", "version", "recordings", "events", "ring_bytes", "broker",
        "kinds", "missed", "keeper", "state", "state_bytes", "spill_bytes", "log_bytes", "users", "sandbox", "problems",
    }  # fmt: skip
    for one in (got["broker"], got["keeper"]):
        assert set(one) == {"pid", "rss_bytes", "cpu_ms"} and one["rss_bytes"] > 1 << 20
        assert os.path.exists(f"/proc/{one['pid']}")
    assert os.path.exists(got["log"]) and got["socket"] == os.environ["PERFKEEP_SOCKET"]
    assert str(got["broker"]["pid"]) in cli("status").out


def test_ls_and_status_count_kinds_of_event_alike(cli: Cli) -> None:
    clocks = [word for name in ("a", "b", "c", "d") for word in ("-e", f"page-faults/name={name}/")]
    assert cli("start", "many", *clocks, "--ring", "64K").code == 0
    events = 4 * len(cpus.online())
    assert "(4 kinds)" in cli("ls").out
    assert f"1 recording; 4 kinds of event on their CPUs: {events} events;" in cli("status").out
    counted = cli("status", "--json").json
    assert (counted["kinds"], counted["events"]) == (4, events)


def test_status_names_the_recordings_that_ls_marks(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("start", "whole", "-e", "cpu-clock", "--ring", "64K")
    assert cli("status", "--json").json["missed"] == [] and "missed" not in cli("status").out
    info = perfkeep.Recording("whole").info
    troubled = msgspec.structs.replace(info, problem="it could not be opened again")
    for verb in (ls, status):
        monkeypatch.setattr(verb, "infos", lambda: [troubled])
    assert "running!" in cli("ls").out
    assert "missing from whole: perfkeep show whole" in cli("status").out
    assert cli("status", "--json").json["missed"] == ["whole"]


def test_start_ends_while_the_recording_goes_on() -> None:
    command = [sys.executable, "-m", "perfkeep"]
    subprocess.run([*command, "start", "alone", "-e", "cpu-clock", "--ring", "64K"], check=True)
    got = subprocess.run([*command, "ls", "--json"], capture_output=True, check=True)
    (listed,) = json.loads(got.stdout)
    assert listed["state"] == "running"
    assert not os.path.exists(f"/proc/{listed['owner']['pid']}")
    assert "start alone" in listed["owner"]["command"]


def test_a_young_recording_reaches_as_far_as_is_asked_for(cli: Cli, tmp_path: Path) -> None:
    cli("start", "young", *EVENTS, "--ring", "1M")
    assert cli("snapshot", "young", "--last", "1h", "-o", str(tmp_path / "x")).code == 0


def test_a_ring_that_is_too_short_makes_exit_code_3_and_still_a_file(
    cli: Cli, tmp_path: Path
) -> None:
    cli("start", "short", "-e", "sched:sched_switch", "--ring", "4K", "-C", "0")
    command = "import time\nfor _ in range(500): time.sleep(0)"
    subprocess.run(["taskset", "-c", "0", sys.executable, "-c", command], check=True)
    for _ in range(200):
        subprocess.run(["taskset", "-c", "0", "true"], check=True)
    got = cli("snapshot", "short", "--last", "1h", "-o", str(tmp_path / "x"))
    assert got.code == 3 and "not complete" in got.err and "CPU 0" in got.err
    assert perf_data.read(str(tmp_path / "x")).events


def test_a_snapshot_goes_to_stdout_as_well(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "perfkeep"]
    subprocess.run([*command, "start", "out", "-e", "cpu-clock", "--ring", "64K"], check=True)
    got = subprocess.run([*command, "snapshot", "out", "-o", "-"], capture_output=True, check=True)
    (tmp_path / "x").write_bytes(got.stdout)
    names = [event.name for event in perf_data.read(str(tmp_path / "x")).events]
    assert names == ["cpu-clock", "dummy:u"]


# --- bad input: a clear error, and nothing lost ------------------------------------------------


@pytest.fixture
def kept(cli: Cli) -> Iterator[None]:
    """A recording that must be as it was after whatever goes wrong."""
    cli("start", "kept", *EVENTS, "--ring", "64K")
    before = cli("ls", "--json").json
    yield
    assert cli("ls", "--json").json == before


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["stat", "kent"], 1, "no recording named 'kent'\nhint: did you mean kept?"),
        (["start", "kept", "-e", "cpu-clock"], 1, "'kept' exists already"),
        (["start", "x y", "-e", "cpu-clock"], 2, "cannot be a recording's name"),
        (["start", "x", "-e", "cpu-clock", "--ring", "5000"], 2, "power of two pages"),
        (
            ["start", "x", "-e", "cpu-clock", "--ring", "3M"],
            2,
            "hint: start it with --ring 2M or 4M",
        ),
        (["start", "x", "-e", "cpu-clock", "--ring", "2G"], 2, "limit is 1G per ring; 2G is 1G"),
        (["start", "x", "-e", "cpu-clock", "--ring", "big"], 2, "not a size"),
        (["start", "x", "-e", "sched:sched_swich"], 2, "sched:sched_switch"),
        (["start", "x", "-e", "cpu-clok"], 2, "cpu-clock"),
        (["start", "x"], 2, "-e sched:sched_switch"),
        (["start", "x", "-e", "cpu-clock", "-C", "4000"], 2, "CPU 4000 does not exist"),
        (["start", "x", "-e", "cpu-clock", "-C", "a"], 2, "0-3,5"),
        (["start", "x", "-e", "cpu-clock", "-p", "99999999"], 1, "no process 99999999"),
        (["start", "x", "-e", "cpu-clock", "--cgroup", "/no/such"], 1, "no cgroup"),
        (["start", "x", "-e", "cpu-clock", "--filter", "a"], 2, "filter needs a tracepoint"),
        (["start", "x", "-e", "sched:sched_switch", "--filter", "no_field == 1"], 2, "filter"),
        (["start", "", "-e", "cpu-clock"], 2, "cannot be a recording's name"),
        (["start", "x" * 65, "-e", "cpu-clock"], 2, "up to 64 letters"),
        (["start", "\udcff", "-e", "cpu-clock"], 2, "cannot be a recording's name"),
        (["show", "\udcff"], 2, "is not UTF-8"),
        (["start", "x", "-e", "cpu-clock", "--cgroup", ""], 2, "no cgroup was named"),
        (["start", "x", "-e", "cpu-clock", "--ring", "-8M"], 2, "not a size"),
        (["add", "kept", "-e", "nonsense"], 2, "nonsense"),
        (["remove", "kept", "-e", "page-faults"], 2, "has no event 'page-faults'"),
        (["snapshot", "kept", "-o", "/no/such/dir/x"], 1, "/no/such/dir/x cannot be written"),
        (["snapshot", "kept", "-o", "/tmp"], 1, "is a directory"),
        (["snapshot", "kept", "--last", "soon", "-o", "/dev/null/x"], 2, "not a time span"),
        (["snapshot", "kept", "--since", "then"], 2, "not a moment"),
        (["snapshot", "kept", "--last", "1s", "--since", "2s"], 2, "--last cannot be combined"),
        (["snapshot", "kept", "--since", "-1s", "--until", "-2s"], 2, "is not after --since"),
        (["claim", "kent"], 1, "no recording named 'kent'"),
        (["report", "/etc/passwd"], 1, "no perf.data file"),
        (["report", "/no/such/file"], 1, "/no/such/file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("kept")
def test_bad_input_is_refused_in_a_sentence_and_nothing_is_lost(
    cli: Cli, words: list[str], code: int, says: str
) -> None:
    got = cli(*words)
    assert (got.code, got.out) == (code, ""), got.err
    usage, sentence, rest = got.err.partition("perfkeep: ")
    assert says in got.err and sentence
    assert usage.startswith("usage: perfkeep ") is (code == 2)
    _, *hint = rest.splitlines()
    assert not hint or (len(hint) == 1 and hint[0].startswith("hint: "))


@requires(cpu_hotplug)
def test_a_cpu_that_is_offline_is_named(cli: Cli) -> None:
    switch = Path("/sys/devices/system/cpu/cpu1/online")
    switch.write_text("0")
    try:
        got = cli("start", "x", "-e", "cpu-clock", "-C", "0-1")
    finally:
        switch.write_text("1")
    assert got.code == 2 and "CPU 1 is offline; CPUs 0 are online" in got.err
    assert cli("ls", "--json").json == []


@pytest.mark.usefixtures("kept")
def test_a_full_disk_leaves_no_file_and_the_recording_as_it_was(cli: Cli, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount("tmpfs", str(small), "tmpfs", 0, "size=16k")
    try:
        got = cli("snapshot", "kept", "-o", str(small / "x"))
        left = os.listdir(small)
    finally:
        umount(str(small))
    assert got.code == 1 and "the disk is full" in got.err and left == []


@pytest.mark.usefixtures("kept")
def test_no_clobber_leaves_a_file_as_it_is(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    got = cli("snapshot", "kept", "-o", str(tmp_path / "x"), "--no-clobber")
    assert got.code == 1 and "exists already" in got.err
    assert (tmp_path / "x").read_text() == "mine" and os.listdir(tmp_path) == ["x"]
    assert cli("snapshot", "kept", "-o", str(tmp_path / "x")).code == 0
    assert (tmp_path / "x").read_bytes()[:8] == b"PERFILE2"


@pytest.mark.usefixtures("kept")
def test_the_limit_of_open_files_is_named_when_it_is_reached() -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))

    command = [sys.executable, "-m", "perfkeep", "start", "x", "-e", "sched:*", "--ring", "64K"]
    got = subprocess.run(command, capture_output=True, text=True, preexec_fn=few)
    assert got.returncode == 1 and "RLIMIT_NOFILE 24, hard limit 24" in got.stderr
    assert "\nhint: record fewer events, or on fewer CPUs with -C\n" in got.stderr


@pytest.mark.usefixtures("kept")
def test_a_device_is_written_to_and_not_replaced(cli: Cli, tmp_path: Path) -> None:
    """The nodes are this test's own: what goes wrong here must not take /dev/null away."""
    for name, minor in (("null", 3), ("full", 7)):
        os.mknod(tmp_path / name, stat.S_IFCHR | 0o600, os.makedev(1, minor))
    assert cli("snapshot", "kept", "-o", str(tmp_path / "null")).code == 0
    got = cli("snapshot", "kept", "-o", str(tmp_path / "full"))
    assert got.code == 1 and "No space left" in got.err
    assert sorted(os.listdir(tmp_path)) == ["full", "null"]
    assert all(path.is_char_device() for path in tmp_path.iterdir())


@pytest.mark.usefixtures("kept")
def test_behind_a_link_the_file_is_replaced_and_not_the_link(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    assert cli("snapshot", "kept", "-o", str(tmp_path / "link")).code == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes()[:8] == b"PERFILE2"


def test_removing_the_last_event_says_that_the_recording_has_ended(cli: Cli) -> None:
    cli("start", "brief", *EVENTS, "--ring", "64K")
    assert "has ended" not in cli("remove", "brief", "-e", EVENTS[1]).out
    assert "brief has ended" in cli("remove", "brief", "-e", EVENTS[3]).out
    assert cli("ls", "--json").json == []


def test_each_verb_that_changes_something_says_in_one_line_what(cli: Cli, tmp_path: Path) -> None:
    assert cli("start", "told", "-e", "cpu-clock/freq=99/", "--ring", "64K").code == 0
    for words, line in (
        (["add", "told", "-e", "page-faults"], "told now records page-faults (id 2)"),
        (["remove", "told", "-e", "page-faults"], "told no longer records page-faults (id 2)"),
        (["disable", "told"], "told is disabled; its rings keep what they hold"),
        (["enable", "told"], "told is enabled"),
        (["chmod", "0600", "told"], "told has mode 0600"),
        (["chown", ":root", "told"], "told has group root"),
        (["chown", "root:root", "told"], "told has owner root and group root"),
    ):
        ran = cli(*words)
        assert (ran.code, ran.out) == (0, line + "\n"), ran.err
    for words in (
        ["export", "told", "--to", "arrow", "-e", "cpu-clock", "-o", str(tmp_path / "a")],
        ["sql", "told", "SELECT 1", "--parquet", str(tmp_path / "a")],
    ):
        assert f"written to {tmp_path / 'a'}\n" in cli(*words).out


def test_doctor_finds_that_root_may_record(cli: Cli) -> None:
    got = cli("doctor")
    assert got.code == 0 and "can be recorded" in got.out
    findings = cli("doctor", "--json").json
    assert {one["verdict"] for one in findings} <= {"ok", "warn"}
    assert all(set(one) == {"verdict", "what", "found", "cure", "others"} for one in findings)
    assert all(one["cure"] for one in findings if one["verdict"] != "ok")


def demo(**options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "perfkeep", "demo"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True, **options)  # fmt: skip


def at_work(pid: int) -> bool:
    """Whether the demo has started both of its processes."""
    return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) >= 2


def test_an_interrupted_demo_ends_its_recording_and_leaves_others_alone(
    cli: Cli, eventually: Eventually
) -> None:
    cli("start", "demo", "-e", "cpu-clock", "--ring", "64K")
    with demo() as process:
        assert process.stdout is not None
        while "# some work begins" not in (line := process.stdout.readline()):
            assert line, "the demo ended before its work began"
        eventually(lambda: at_work(process.pid))
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == "", err
    assert [one["name"] for one in cli("ls", "--json").json] == ["demo"]


def test_a_demo_that_is_not_permitted_says_which_setting_forbids_it() -> None:
    """As uid 0 without its capabilities: another user might not be able to read this code."""
    with open("/proc/sys/kernel/perf_event_paranoid") as file:
        setting = file.read().strip()
    if int(setting) < 1:
        pytest.skip(f"kernel.perf_event_paranoid = {setting} permits it to everyone")
    got = subprocess.run(
        [sys.executable, "-c", _WITHOUT_RIGHTS], capture_output=True, text=True, timeout=60
    )
    assert got.returncode == 1, got.stderr
    assert f"kernel.perf_event_paranoid = {setting}" in got.stdout + got.stderr
    assert f"cap_perfmon=ep {privileges.LAUNCHER}" in got.stdout.partition("allow it with: ")[2]
    assert "Traceback" not in got.stderr and not os.path.exists(os.environ["PERFKEEP_SOCKET"])


# Drops CAP_PERFMON and CAP_SYS_ADMIN (and CAP_SYS_PTRACE, which also counts) of uid 0 for good.
_WITHOUT_RIGHTS = """
import ctypes, struct, sys
from perfkeep.cli.main import main
with open("/proc/self/status") as file:
    have = next(int(line.split()[1], 16) for line in file if line.startswith("CapPrm"))
kept = have & ~(1 << 38 | 1 << 21 | 1 << 19)
low, high = kept & 0xffffffff, kept >> 32
header = struct.pack("=Ii", 0x20080522, 0)
data = struct.pack("=6I", low, low, 0, high, high, 0)
assert ctypes.CDLL(None, use_errno=True).capset(header, data) == 0
sys.exit(main(["demo"]))
"""


def test_the_demo_runs_and_leaves_nothing() -> None:
    command = [sys.executable, "-m", "perfkeep"]
    got = subprocess.run([*command, "demo"], capture_output=True, text=True, timeout=120)
    assert got.returncode == 0, got.stderr
    for line in ("$ perfkeep start demo", "$ perfkeep snapshot demo --last 1s", "demo has ended"):
        assert line in got.stdout
    listed = subprocess.run([*command, "ls", "--json"], capture_output=True, check=True)
    assert json.loads(listed.stdout) == []
