"""Random calls under `perfkeep exec`: whatever a program does, nobody hangs, leaks or crashes.

PERFKEEP_FUZZ_SECONDS says for how long (`make fuzz` takes ten minutes), PERFKEEP_FUZZ_SEED
repeats a run's calls, though not how its threads met.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path

import perfkeep
from perfkeep.client import connection
from perfkeep.errors import BrokerError
from perfkeep.testing.requirements import compiler, perf_events, requires, seccomp_notification
from support.instance import Running
from support.program import EXEC, compile_c, supervisors
from support.waiting import Eventually

pytestmark = requires(perf_events, compiler, seccomp_notification)

HERE = Path(__file__).parent
SECONDS = int(os.environ.get("PERFKEEP_FUZZ_SECONDS", "4"))
SEED = int(os.environ.get("PERFKEEP_FUZZ_SEED") or secrets.randbits(32))


#: Of a supervisor: what it always has, and a few for the calls that it is answering.
MOST_FILES = 40
#: All that it may remember, and a Python.
MOST_RESIDENT = 80 << 20


def resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def files_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def claim_all() -> None:
    """The rings of what was unclaimed would fill the machine; and who claims meanwhile is one
    more that the program does not expect."""
    for recording in perfkeep.recordings():
        try:
            recording.claim()
        except BrokerError:
            continue  # the program was faster


def test_no_program_brings_anybody_down(
    running: Running, tmp_path: Path, eventually: Eventually
) -> None:
    perfkeep.start("untouched", ["cpu-clock/freq=100/"], ring="64K").claim()
    flight = perfkeep.start("flight", ["cpu-clock/freq=100/"], ring="64K")
    before = [(pid, files_of(pid)) for pid in running.pids()]
    fuzz = compile_c(HERE / "fuzz.c", tmp_path / "fuzz")
    command = [*EXEC, str(fuzz), str(SEED), str(SECONDS)]
    print("seed", SEED)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        while True:
            try:
                code = program.wait(2)
                break
            except subprocess.TimeoutExpired:
                for pid in supervisors(running.socket):
                    assert files_of(pid) < MOST_FILES and resident(pid) < MOST_RESIDENT
                claim_all()
                flight = perfkeep.start("flight", ["cpu-clock/freq=100/"], ring="64K")
        assert program.stdout is not None
        calls = int(program.stdout.read())
    print(f"{calls:,} calls in {SECONDS} s")
    assert code == 0 and calls > 100 * SECONDS
    eventually(lambda: not supervisors(running.socket))
    claim_all()
    flight = perfkeep.start("flight", ["cpu-clock/freq=100/"], ring="64K")
    assert flight.info.state == "running"
    connection.disconnect()
    log = Path(f"{running.socket}.log").read_text()
    assert "Error" not in log and "Traceback" not in log and "gone" not in log, log
    assert [pid for pid, _ in before] == list(running.pids())
    # Closed in a thread, so a moment later.
    eventually(lambda: all(files_of(pid) <= files for pid, files in before))
