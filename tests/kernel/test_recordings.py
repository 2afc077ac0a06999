"""Recordings of the machine, of processes and of cgroups: what they count, and how they change."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import perfkeep
from perfkeep.errors import BrokerError, KernelRefused, PerfkeepError, SpecError, UsageError
from perfkeep.kernel import cpus
from perfkeep.testing.requirements import perf_events, requires, root, tracefs
from support.caller import CALLS, Callers
from support.instance import names
from support.nobody import AsNobody
from support.waiting import Eventually

pytestmark = [
    requires(perf_events, tracefs, root),
    pytest.mark.usefixtures("running", "tracefs_mounted"),
]

RETURNS = "syscalls:sys_exit_getpriority"
LAST = max(cpus.online())
TWO_CPUS = pytest.mark.skipif(len(cpus.online()) < 2, reason="one CPU is online, two are needed")


def count(recording: perfkeep.Recording, event: str = CALLS) -> int:
    (found,) = (one for one in recording.stat().events if one.event == event)
    return sum(one.value for one in found.per_cpu)


def state(recording: perfkeep.Recording) -> str:
    return recording.info.state


# --- what is recorded -------------------------------------------------------------------------


def test_the_whole_machine_is_recorded_on_every_cpu(caller: Callers) -> None:
    recording = perfkeep.start("all", [CALLS], ring="64K")
    first, last = caller(0), caller(LAST)
    for one in (first, last):
        one.ask("call", 100)
    assert count(recording) >= 200
    with recording.snapshot() as snapshot:
        for one in (first, last):
            assert one.numbers_in(snapshot) == list(range(1, 101))
    info = recording.info
    assert str(info.target) == "all tasks"
    assert info.events[0].cpus == list(cpus.online())
    assert info.state == "running"


@TWO_CPUS
def test_a_list_of_cpus_records_those_alone(caller: Callers) -> None:
    recording = perfkeep.start("last", [CALLS], cpus=[LAST], ring="64K")
    here, elsewhere = caller(LAST), caller(0)
    for one in (here, elsewhere):
        one.ask("call", 50)
    assert recording.info.events[0].cpus == [LAST]
    assert [one.cpu for one in recording.stat().events[0].per_cpu] == [LAST]
    with recording.snapshot() as snapshot:
        assert here.numbers_in(snapshot) == list(range(1, 51))
        assert elsewhere.numbers_in(snapshot) == []


def test_a_cpu_that_does_not_exist_is_named_and_nothing_starts() -> None:
    with pytest.raises(UsageError, match="CPU 4000 does not exist") as caught:
        perfkeep.start("x", [CALLS], cpus=[0, 4000])
    assert caught.value.errno == errno.ENODEV
    assert names() == []


def test_a_process_is_recorded_with_every_thread_and_what_it_forks(caller: Callers) -> None:
    one, other = caller(), caller()
    recording = perfkeep.start("pid", [CALLS], pid=one.pid, ring="64K")
    assert recording.info.target.pids == [one.pid]
    one.ask("call", 10)
    one.ask("thread", 20)
    one.ask("fork", 30)
    other.ask("call", 1000)
    assert count(recording) == 60
    with recording.snapshot() as snapshot:
        # Those of the fork carry the child's pid.
        assert one.numbers_in(snapshot) == list(range(1, 31))
        assert other.numbers_in(snapshot) == []


def test_a_recording_of_a_process_that_has_gone_is_ended_and_still_there(
    caller: Callers, eventually: Eventually
) -> None:
    one = caller()
    recording = perfkeep.start("pid", [CALLS], pid=one.pid, ring="64K")
    assert state(recording) == "running"
    one.ask("call", 10)
    one.end()
    eventually(lambda: state(recording) == "ended")
    assert count(recording) == 10
    with recording.snapshot() as snapshot:
        assert one.numbers_in(snapshot) == list(range(1, 11))


def test_a_process_that_is_not_there_is_named() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    with pytest.raises(PerfkeepError, match=f"no process {gone.pid}") as caught:
        perfkeep.start("x", [CALLS], pid=gone.pid)
    assert caught.value.errno == errno.ESRCH
    assert names() == []


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of its own, empty."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    place = next((Path(m[1]) for m in mounts if m[2] == "cgroup2"), None)
    if place is None or any(m[2] == "cgroup" and "perf_event" in m[3] for m in mounts):
        pytest.skip("perf_event is not a controller of cgroup2 here")
    made = place / f"perfkeep-test-{os.getpid()}"
    made.mkdir()
    yield made
    for pid in (made / "cgroup.procs").read_text().split():
        (place / "cgroup.procs").write_text(pid)
    made.rmdir()


def test_a_cgroup_is_recorded_with_who_comes_into_it(
    caller: Callers, cgroup: Path, eventually: Eventually
) -> None:
    inside, outside = caller(), caller()
    recording = perfkeep.start("group", [CALLS], cgroup=cgroup.name, ring="64K")
    (cgroup / "cgroup.procs").write_text(str(inside.pid))
    inside.ask("call", 40)
    inside.ask("fork", 2)
    outside.ask("call", 1000)
    assert recording.info.target.cgroup is not None
    assert state(recording) == "running"
    assert count(recording) == 42
    with recording.snapshot() as snapshot:
        assert inside.numbers_in(snapshot) == list(range(1, 41))
        assert outside.numbers_in(snapshot) == []


def test_a_cgroup_that_is_not_there_is_named() -> None:
    with pytest.raises(PerfkeepError, match="'nowhere' is no cgroup") as caught:
        perfkeep.start("x", [CALLS], cgroup="nowhere")
    assert caught.value.errno == errno.ENOENT


def test_a_filter_keeps_the_samples_that_match(caller: Callers) -> None:
    one = caller()
    recording = perfkeep.start("some", [(CALLS, f"who <= {0x40000000 + 5}")], pid=one.pid)
    one.ask("call", 1000)
    with recording.snapshot() as snapshot:
        assert one.numbers_in(snapshot) == [1, 2, 3, 4, 5]


def test_a_filter_that_the_kernel_does_not_take_is_named_and_nothing_starts() -> None:
    with pytest.raises(SpecError, match="no_such_field") as caught:
        perfkeep.start("some", [(CALLS, "no_such_field == 1")])
    assert caught.value.part == "no_such_field == 1"
    assert names() == []


# --- changing ---------------------------------------------------------------------------------


def test_switched_off_nothing_is_counted_and_what_was_recorded_stays(caller: Callers) -> None:
    one = caller()
    recording = perfkeep.start("switch", [CALLS], ring="64K", enable=False)
    one.ask("call", 5)
    assert state(recording) == "disabled"
    recording.enable()
    assert state(recording) == "running"
    one.ask("call", 5)
    recording.disable()
    assert state(recording) == "disabled"
    one.ask("call", 5)
    with recording.snapshot() as snapshot:
        assert one.numbers_in(snapshot) == [6, 7, 8, 9, 10]


def test_an_event_switched_off_through_its_fd_is_listed_as_it_is() -> None:
    recording = perfkeep.start("switch", ["cpu-clock"], cpus=[0], ring="64K")
    with perfkeep.reopen(recording.info.events[0].id, 0) as event:
        event.disable()
        assert state(recording) == "disabled"
        event.enable()
        assert state(recording) == "running"


def test_events_come_and_go_and_the_others_lose_nothing(caller: Callers) -> None:
    one = caller(0)
    recording = perfkeep.start("steady", ["context-switches", CALLS], ring="8M")
    with one.calling(every_us=20):
        for _ in range(5):
            recording.add([RETURNS, "page-faults"])
            assert [event.event for event in recording.info.events][-2:] == [RETURNS, "page-faults"]
            recording.remove([RETURNS, "page-faults"])
    last = one.ask("call", 0)
    assert [event.event for event in recording.info.events] == ["context-switches", CALLS]
    with recording.snapshot() as snapshot:
        assert one.numbers_in(snapshot) == list(range(1, last + 1))


def test_what_joins_has_the_state_of_the_recording(caller: Callers) -> None:
    one = caller()
    recording = perfkeep.start("switch", ["context-switches"], ring="64K", enable=False)
    recording.add([CALLS])
    one.ask("call", 5)
    assert count(recording) == 0
    recording.enable()
    recording.add([RETURNS])
    one.ask("call", 5)
    assert count(recording) == count(recording, RETURNS) == 5


def test_the_owner_of_the_ring_may_leave_and_the_ring_goes_on(caller: Callers) -> None:
    one = caller(0)
    recording = perfkeep.start("owned", ["context-switches", CALLS], ring="512K")
    one.ask("call", 10)
    recording.remove(["context-switches"])
    one.ask("call", 10)
    (event,) = recording.info.events
    assert event.event == CALLS
    with recording.snapshot() as snapshot:
        assert one.numbers_in(snapshot) == list(range(1, 21))
    with perfkeep.reopen(event.id, 0) as again, again.mmap(512 << 10) as mapping:
        assert any(mapping[4096:])
    recording.add([RETURNS])
    one.ask("call", 3)
    assert count(recording, RETURNS) == 3


def test_the_owner_that_left_records_no_more(eventually: Eventually) -> None:
    recording = perfkeep.start("owned", ["cpu-clock", CALLS], cpus=[0], ring="64K")
    with perfkeep.reopen(recording.info.events[0].id, 0) as owner:
        recording.remove(["cpu-clock"])
        assert owner.read().value == owner.read().value


def test_an_event_that_left_and_is_still_open_writes_no_more_into_the_ring(caller: Callers) -> None:
    one = caller(0)
    recording = perfkeep.start("shared", ["page-faults", CALLS], cpus=[0], ring="64K")
    with perfkeep.reopen(recording.info.events[1].id, 0) as left:
        recording.remove([CALLS])
        before = left.read().value
        one.ask("call", 10)
        assert left.read().value == before + 10, "it is its holder's now, and counts on"
        with recording.snapshot() as snapshot:
            assert snapshot.coverage.cpus
            assert one.numbers_in(snapshot) == []


def test_a_process_is_joined_by_events_of_the_same_process(caller: Callers) -> None:
    one, other = caller(), caller()
    recording = perfkeep.start("pid", ["context-switches"], pid=one.pid, ring="64K")
    recording.add([CALLS])
    one.ask("call", 7)
    one.ask("thread", 7)
    other.ask("call", 7)
    assert count(recording) == 14


def test_an_event_that_is_not_there_cannot_be_removed() -> None:
    recording = perfkeep.start("owned", ["cpu-clock"], cpus=[0], ring="64K")
    with pytest.raises(UsageError, match="it has cpu-clock") as caught:
        recording.remove(["page-faults"])
    assert caught.value.errno == errno.ENOENT
    assert [event.event for event in recording.info.events] == ["cpu-clock"]


def test_with_its_last_event_a_recording_goes() -> None:
    recording = perfkeep.start("brief", ["cpu-clock", "page-faults"], cpus=[0], ring="64K")
    recording.remove(["cpu-clock", "page-faults"])
    assert names() == []
    with pytest.raises(BrokerError) as caught:
        recording.info  # noqa: B018
    assert caught.value.errno == errno.ENOENT


def test_a_claimed_recording_is_gone_and_its_name_free() -> None:
    for _ in range(2):
        recording = perfkeep.start("again", ["cpu-clock"], ring="64K")
        assert names() == ["again"]
        recording.claim()
        assert names() == []


# --- limits -----------------------------------------------------------------------------------


def test_a_name_in_use_leaves_the_first_as_it_was() -> None:
    first = perfkeep.start("taken", ["cpu-clock"], ring="64K")
    known = first.info
    with pytest.raises(BrokerError, match="'taken' exists already") as caught:
        perfkeep.start("taken", ["page-faults"], ring="64K")
    assert caught.value.errno == errno.EEXIST and "perfkeep claim taken" in caught.value.hint
    assert msgspec.structs.asdict(first.info) == msgspec.structs.asdict(known)


def test_the_open_files_limit_is_named_and_nothing_starts() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open("/dev/null") as lowest:
        most = lowest.fileno() + 10
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        with pytest.raises(KernelRefused, match=f"RLIMIT_NOFILE {most}") as caught:
            perfkeep.start("many", ["syscalls:sys_enter_m*"], ring="64K")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE
    assert names() == []


def test_more_events_than_fds_in_a_message_are_one_recording() -> None:
    several = [f"page-faults/period={number}/" for number in range(1, 301)]
    recording = perfkeep.start("many", several, cpus=[0], ring="64K")
    ids = [event.id for event in recording.info.events]
    assert len(set(ids)) == 300
    kernel_ids = set()
    for id in ids:
        with perfkeep.reopen(id, 0) as event:
            kernel_ids.add(event.ids.kernel)
    assert len(kernel_ids) == 300


USERS_OWN = """
import os, perfkeep
recording = perfkeep.start("mine", ["task-clock"], pid=os.getpid(), ring="16K")
total = sum(range(3_000_000))
value = sum(one.value for event in recording.stat().events for one in event.per_cpu)
info = recording.info
with recording.snapshot() as snapshot:
    covered = sum(cpu.records for cpu in snapshot.coverage.cpus)
print(info.owner.uid, info.state, value > 0, covered > 0)
recording.claim()
print(perfkeep.recordings())
"""


def test_a_user_without_rights_may_record_processes_of_their_own(
    as_nobody: AsNobody, eventually: Eventually
) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [os.path.realpath(sys.executable), f"/usr/bin/{version}"]
    usable = as_nobody(lambda: [one for one in candidates if os.access(one, os.X_OK)])
    if not usable:
        pytest.skip(f"other users may run none of {', '.join(candidates)}")
    if int(Path("/proc/sys/kernel/perf_event_paranoid").read_text()) > 2:
        pytest.skip("kernel.perf_event_paranoid keeps users from recording anything")
    with tempfile.TemporaryDirectory(prefix="pk-") as folder:
        place, runtime = Path(folder), Path(folder) / "run"
        place.chmod(0o755)
        runtime.mkdir(mode=0o700)
        os.chown(runtime, 65534, 65534)
        for module in (perfkeep, msgspec):
            source = Path(str(module.__file__)).parent
            shutil.copytree(source, place / source.name)
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        runtime.chmod(0o700)
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": folder,
            "PYTHONDONTWRITEBYTECODE": "1",
            "XDG_RUNTIME_DIR": str(runtime),
        }
        done = subprocess.run(
            [usable[0], "-S", "-c", USERS_OWN],
            user=65534,
            group=65534,
            extra_groups=[],
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
        )
        lock = runtime / "perfkeep" / "perfkeep.sock.lock"
        pids = [int(word) for word in lock.read_text().split() if word.isdecimal()]
        os.kill(pids[0], signal.SIGTERM)
        eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
        assert done.stdout == "65534 running True True\n[]\n", done.stderr
