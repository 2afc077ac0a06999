"""What the measurements stand on: an instance of their own, loads, and stock perf.

Everything started here is ended here.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perfkeep.client.connection import disconnect

#: The event that loads write: its second argument is a running number.
EVENT = "syscalls:sys_enter_getpriority"


@contextmanager
def instance() -> Iterator[str]:
    """A broker and a keeper that nobody else uses."""
    before = os.environ.get("PERFKEEP_SOCKET")
    with tempfile.TemporaryDirectory(prefix="pkb-") as directory:
        os.chmod(directory, 0o711)  # so that recordings can be shared
        path = os.environ["PERFKEEP_SOCKET"] = f"{directory}/s"
        try:
            yield path
        finally:
            disconnect()
            if os.path.exists(path + ".lock"):
                pids = re.findall(r"\d+", Path(path + ".lock").read_text())
                _end([int(pid) for pid in pids])
            if before is None:
                del os.environ["PERFKEEP_SOCKET"]
            else:
                os.environ["PERFKEEP_SOCKET"] = before


def _end(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)


_LOAD = """
import os, sys, time
pause, cpu = float(sys.argv[1]), int(sys.argv[2])
os.sched_setaffinity(0, {cpu})
n = cpu << 32
while True:
    n += 1
    try:
        os.getpriority(0, n & 0x7fffffff)
    except OSError:
        pass
    if pause:
        time.sleep(pause)
"""


@contextmanager
def load(pause_s: float, cpu: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process on one CPU that fires EVENT again and again, pausing in between."""
    command = [sys.executable, "-S", "-c", _LOAD, str(pause_s), str(cpu)]
    with subprocess.Popen(command) as process:
        try:
            yield process
        finally:
            process.kill()


def have_perf() -> bool:
    return shutil.which("perf") is not None


@contextmanager
def perf_record(output: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`perf record --overwrite --switch-output`, recording when this returns; stderr is a pipe."""
    command = ["perf", "record", "-e", EVENT, "-a", "--overwrite", "--switch-output"]
    command += [*options, "-o", output]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            _wait_until_recording(process.pid)
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()


def _wait_until_recording(pid: int) -> None:
    """perf has its rings mapped and sleeps in poll(2)."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        maps = Path(f"/proc/{pid}/maps").read_text()
        waits = Path(f"/proc/{pid}/wchan").read_text()
        if "perf_event" in maps and "poll" in waits:
            return
        time.sleep(0.01)
    raise TimeoutError("perf record did not begin to record within 20 s")


def perf_dump(process: subprocess.Popen[str]) -> float:
    """SIGUSR2 and wait for the file: seconds until perf says that it is written."""
    assert process.stderr is not None
    begin = time.perf_counter()
    process.send_signal(signal.SIGUSR2)
    for line in process.stderr:
        if "Dump " in line:
            return time.perf_counter() - begin
    raise RuntimeError("perf record ended")


def cpu_ticks_and_wakeups(pid: int) -> tuple[int, int]:
    """utime + stime in clock ticks, and context switches, of every thread of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    switches = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        found = re.findall(r"ctxt_switches:\s+(\d+)", status.read_text())
        switches += sum(int(one) for one in found)
    return int(fields[11]) + int(fields[12]), switches
