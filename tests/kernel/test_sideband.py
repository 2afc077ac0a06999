"""Samples have the names and functions of their processes, though these have ended long ago."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import perfkeep
from perfkeep.abi.perf_event import Attr, Flag, Sample
from perfkeep.abi.records import Record
from perfkeep.analysis.stacks import stacks
from perfkeep.analysis.symbolize import Function
from perfkeep.broker.sideband import Sideband
from perfkeep.cli.main import main
from perfkeep.client import recover
from perfkeep.client.adopt import adopt
from perfkeep.client.connection import disconnect
from perfkeep.client.look import look
from perfkeep.client.sideband import kind_for, open_sideband
from perfkeep.kernel.cpus import online
from perfkeep.testing.requirements import perf_events, perf_tool, requires, root, tracefs
from perfkeep.wire.messages import Kind, Target
from support.instance import Running
from support.waiting import Eventually

pytestmark = [requires(perf_events, tracefs, root), pytest.mark.usefixtures("running")]

SOURCE = """
#include <time.h>
volatile long sum;
__attribute__((noinline)) void burn_the_time(void) { for (int i = 0; i < 100000; i++) sum += i; }
int main(int count, char **words) {
  struct timespec now, begin;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
  do {
    burn_the_time();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  } while (count > 2 || now.tv_sec - begin.tv_sec + (now.tv_nsec - begin.tv_nsec) / 1e9 < (count > 1 ? 2 : 0.3));
}
"""


@pytest.fixture
def burner(tmp_path: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "burner.c").write_text(SOURCE)
    made = tmp_path / "burner"
    subprocess.run([compiler, "-O1", "-o", made, tmp_path / "burner.c"], check=True)
    return made


def seen(recording: perfkeep.Recording, path: Path) -> int:
    """How many samples the snapshot has of burner in its function."""
    recording.snapshot(str(path))
    return named(path)


def named(path: Path) -> int:
    found = stacks(look(str(path)), "cpu_clock")
    return sum(
        count
        for ((comm,), chain), count in found.samples.items()
        if comm == "burner" and found.functions[chain[-1]].name == "burn_the_time"
    )


def test_a_process_that_lived_two_seconds_and_ended_has_its_name_and_symbols(
    burner: Path, tmp_path: Path
) -> None:
    recording = perfkeep.start("flight", ["cpu-clock/freq=999/"], ring="1M")
    subprocess.run([burner, "long"], check=True)
    assert seen(recording, tmp_path / "x.data") > 500


@requires(perf_tool)
def test_stock_perf_names_it_as_well(burner: Path, tmp_path: Path) -> None:
    recording = perfkeep.start("flight", ["cpu-clock/freq=999/"], ring="1M")
    subprocess.run([burner], check=True)
    recording.snapshot(str(tmp_path / "x.data"))
    got = subprocess.run(
        ["perf", "report", "--stdio", "-i", tmp_path / "x.data", "--sort", "comm,sym"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert any("burner" in line and "burn_the_time" in line for line in got.stdout.splitlines())


@requires(perf_tool)
def test_stock_perf_runs_beside_a_recording(tmp_path: Path) -> None:
    # An event that asks for build ids has the kernel mark the records of all others as well.
    perfkeep.start("flight", ["cpu-clock"], ring="64K")
    for _ in range(3):
        out = str(tmp_path / "x.data")
        subprocess.run(["perf", "record", "-q", "-e", "cpu-clock", "-o", out, "true"], check=True)


@pytest.mark.parametrize("who", ["broker", "keeper"])
def test_it_is_known_when_a_daemon_has_died_since(
    burner: Path, tmp_path: Path, running: Running, who: str, eventually: Eventually
) -> None:
    recording = perfkeep.start("flight", ["cpu-clock/freq=999/"], ring="1M")
    subprocess.run([burner], check=True)
    before = seen(recording, tmp_path / "before.data")
    assert before > 100
    pids = running.pids()
    os.kill(pids[who == "keeper"], signal.SIGKILL)
    disconnect()
    eventually(lambda: running.pids() != pids)
    assert seen(recording, tmp_path / "after.data") == before


def test_it_is_in_what_is_recovered_when_both_daemons_have_died(
    burner: Path, tmp_path: Path, running: Running, eventually: Eventually
) -> None:
    recording = perfkeep.start(
        "flight", ["cpu-clock/freq=999/"], ring="1M", spill=str(tmp_path / "spill"), spill_every=0.2
    )

    def spilled() -> bool:
        spill = recording.info.spill
        return spill is not None and spill.last_ns > ended_ns

    subprocess.run([burner], check=True)
    ended_ns = time.time_ns()
    eventually(spilled)
    pids = running.pids()
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)
    disconnect()
    spilled_copy = recover.look(str(tmp_path / "spill"))
    assert not spilled_copy.problems
    recover.recover(spilled_copy, str(tmp_path / "x.data")).close()
    assert named(tmp_path / "x.data") > 100
    # A crash copy that cannot be read in this is one of samples all the same.
    told = tmp_path / "spill" / "told"
    os.truncate(told, 5000)
    spilled_copy = recover.look(str(tmp_path / "spill"))
    assert spilled_copy.problems == [f"{told}: it was cut short"]
    recover.recover(spilled_copy, str(tmp_path / "y.data")).close()
    assert named(tmp_path / "y.data") == 0 < len(look(str(tmp_path / "y.data")).tables["cpu_clock"])


_RECORDS = """
import mmap, sys
from dataclasses import replace
from perfkeep import events
from perfkeep.abi.perf_event import Flag, Sample
from perfkeep.kernel.cpus import online
from perfkeep.kernel.syscalls import perf_event_open

attr = events.for_flight_ring(events.parse("cpu-clock/freq=999/")[0], False)
ids = Sample.IDENTIFIER if sys.argv[1] == "ids" else Sample(0)
attr = replace(attr, sample_type=attr.sample_type & ~Sample.IDENTIFIER | ids)
fds = [perf_event_open(attr.with_flags(off=Flag.DISABLED), -1, cpu) for cpu in online()]
maps = [mmap.mmap(fd.fileno(), 257 << 12, mmap.MAP_SHARED, mmap.PROT_READ) for fd in fds]
print("ready", flush=True)
sys.stdin.read()
"""


@requires(perf_tool)
@pytest.mark.parametrize("how", ["ids", "no ids"])
def test_it_is_known_in_what_was_adopted(burner: Path, tmp_path: Path, how: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _RECORDS, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as program:
        assert program.stdout is not None and program.stdout.readline() == b"ready\n"
        recording = adopt(program.pid, "taken", ["cpu-clock"])
        program.kill()
    assert not any("processes that end" in note for note in recording.notes)
    subprocess.run([burner], check=True)
    assert seen(recording, tmp_path / "x.data") > 100
    got = subprocess.run(
        ["perf", "script", "-i", tmp_path / "x.data", "-F", "comm,ip,sym", "--comm", "burner"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert got.stdout.count("burn_the_time") > 100


def test_of_many_that_come_and_go_none_is_lost_while_the_broker_keeps_up(tmp_path: Path) -> None:
    recording = perfkeep.start("flight", ["sched:sched_process_exit"], ring="1M")
    # Of a name of its own: others may run programs as well.
    goes = shutil.copy("/bin/true", tmp_path / "goes")
    subprocess.run(["sh", "-c", 'for i in $(seq 400); do "$0"; done', goes], check=True)
    assert recording.info.sideband == list(online())
    recording.snapshot(str(tmp_path / "x.data"))
    data = look(str(tmp_path / "x.data"))
    ended = data.sql("SELECT count(*) FROM sched_process_exit WHERE comm = 'goes'").fetchall()
    assert ended == [(400,)]
    kinds = [kind for kind, _ in data.others()]
    # 16 KiB of a ring, at which the broker is woken, hold about thirty of these.
    assert kinds.count(Record.EXIT) >= 400


def test_who_is_born_on_one_cpu_and_ends_on_another_is_not_taken_for_alive() -> None:
    first, *others = sorted(online())
    if not others:
        pytest.skip("there is one CPU")
    second = others[0]

    class Nobody:
        def put(self, *what: object) -> None: ...

        def drop(self, *what: object) -> None: ...

    keeper: Any = Nobody()
    # Of this process and its children alone: nothing reads these rings before the end, so they must
    # hold what comes until then, and nobody else may write into them.
    attr = Attr(sample_type=Sample.TID | Sample.TIME, flags=Flag.SAMPLE_ID_ALL | Flag.INHERIT)
    kind = kind_for([Kind("any", "any", attr.pack())])
    assert kind is not None
    kind, on, fds = open_sideband(kind, Target(pids=[os.getpid()]), [first, second])
    one = Sideband(b"told/", kind)
    one.add(keeper, on, fds, {})
    born, pids = os.sched_getaffinity(0), []
    try:
        for _ in range(20):
            for here, there in ((first, second), (second, first)):
                os.sched_setaffinity(0, {here})
                child = subprocess.Popen(["taskset", "-c", str(there), "/bin/true"])
                pids.append(child.pid)
                child.wait()
        one.read(keeper)
        assert not one.lost
        some, rest, *living = map(bytes, one.processes.records())
        # Behind 8 bytes of header stands the pid.
        assert not {int.from_bytes(data[8:12], "little") for data in living}.intersection(pids)
        assert all(pid.to_bytes(4, "little") in some + rest for pid in pids)
    finally:
        os.sched_setaffinity(0, born)
        one.close()
        for fd in fds:
            fd.close()


def test_a_recording_of_one_process_knows_what_that_forks(burner: Path, tmp_path: Path) -> None:
    command = ["sh", "-c", 'read line; "$0"; read line', str(burner)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as shell:
        assert shell.stdin is not None
        recording = perfkeep.start("flight", ["cpu-clock/freq=999/"], ring="256K", pid=shell.pid)
        shell.stdin.write(b"\n")
        shell.stdin.flush()
        shell.communicate(b"\n")
    assert seen(recording, tmp_path / "x.data") > 100


def test_who_does_without_knows_only_those_that_live(
    burner: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["start", "flight", "-e", "cpu-clock/freq=999/", "--ring", "1M", "--no-sideband"]
    assert main(command) == 0
    subprocess.run([burner], check=True)
    recording = perfkeep.Recording("flight")
    assert recording.info.sideband == []
    capsys.readouterr()
    assert main(["show", "flight"]) == 0
    assert "it has no sideband" in capsys.readouterr().out
    assert seen(recording, tmp_path / "x.data") == 0
    data = look(str(tmp_path / "x.data"))
    assert "python" in {comm for (comm,) in data.sql("SELECT comm FROM cpu_clock").fetchall()}
    kinds = {kind for kind, _ in data.others()}
    assert not kinds & {Record.FORK, Record.EXIT}


def test_who_lives_is_not_looked_for_in_proc_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perfkeep.kernel import procfs

    recording = perfkeep.start("flight", ["cpu-clock"], ring="64K")
    looked: list[int] = []
    process = procfs.process

    def look_at(pid: int) -> procfs.Process | None:
        looked.append(pid)
        return process(pid)

    monkeypatch.setattr(procfs, "process", look_at)
    recording.snapshot(str(tmp_path / "x.data"))
    # Only who has no mappings of its own: kernel threads, and what forked without an exec.
    assert os.getpid() not in looked
    tasks = look(str(tmp_path / "x.data")).tasks
    assert Path("/proc/self/comm").read_text().strip() in tasks.names


JIT = """
code = bytes.fromhex("b800000010ffc875fcc3")  # mov eax, 0x10000000; loop: dec eax; jnz loop; ret
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(code)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
tell(address)
ctypes.CFUNCTYPE(None)(address)()
"""
_MAP = """import ctypes, mmap, os, sys
def tell(address):
    with open(f"/tmp/perf-{os.getpid()}.map", "w") as out:
        out.write(f"{address:x} {len(code):x} made_at_run_time\\n")
"""
# As node --perf-prof, Java's agents and CPython's -X perf_jit do it: the file is mapped.
_DUMP = """import ctypes, mmap, os, struct, sys
def tell(address):
    pid, name = os.getpid(), b"made_at_run_time\\0"
    path = f"{sys.argv[1]}/jit-{pid}.dump"
    with open(path, "w+b") as out:
        out.write(struct.pack("=IIIIIIQQ", 0x4A695444, 1, 40, 62, 0, pid, 0, 0))
        body = struct.pack("=IIQQQQ", pid, pid, address, address, len(code), 0) + name + code
        out.write(struct.pack("=IIQ", 0, 16 + len(body), 0) + body)
        out.flush()
        global marker
        marker = mmap.mmap(out.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC)
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the code that it makes is x86_64's")
@pytest.mark.parametrize("tell", [_MAP, _DUMP], ids=["perf map", "jitdump"])
def test_code_that_was_made_at_run_time_has_the_name_that_its_compiler_gave(
    tell: str, tmp_path: Path
) -> None:
    recording = perfkeep.start("flight", ["cpu-clock/freq=999/"], ring="1M")
    with subprocess.Popen([sys.executable, "-c", tell + JIT, str(tmp_path)]) as process:
        process.wait()
    map = Path(f"/tmp/perf-{process.pid}.map")
    dump = tmp_path / f"jit-{process.pid}.dump"
    try:
        recording.snapshot(str(tmp_path / "x.data"))
        found = stacks(look(str(tmp_path / "x.data")), "cpu_clock", ["pid"])
        names = {
            found.functions[chain[-1]]: count
            for ((pid,), chain), count in found.samples.items()
            if pid == process.pid
        }
        file = map if tell == _MAP else dump
        assert names[Function("made_at_run_time", str(file))] > 20
    finally:
        map.unlink(missing_ok=True)


def test_files_of_a_process_in_its_own_mount_namespace_are_read_there(
    burner: Path, tmp_path: Path, eventually: Eventually
) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    inside = tmp_path / "inside"
    inside.write_bytes(b"")
    recording = perfkeep.start("flight", ["cpu-clock/freq=999/"], ring="1M")
    script = f"mount --bind {burner} {inside} && exec {inside} for ever"
    with subprocess.Popen(["unshare", "-m", "sh", "-c", script]) as process:

        def leaves() -> set[str]:
            recording.snapshot(str(tmp_path / "x.data"))
            found = stacks(look(str(tmp_path / "x.data")), "cpu_clock", ["pid"])
            chains = [chain for (pid,), chain in found.samples if pid == process.pid]
            return {found.functions[chain[-1]].name for chain in chains}

        try:
            # It runs until it is killed: its file can be read as long as it lives.
            eventually(lambda: "burn_the_time" in leaves())
        finally:
            process.kill()
    assert inside.stat().st_size == 0
