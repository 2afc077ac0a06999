"""The views `off_cpu` and `run_queue` of recordings of some tasks: right, or refused with the reason."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import perfkeep
from perfkeep.analysis.data import Data
from perfkeep.client.opening import cgroup_directory
from perfkeep.errors import PerfkeepError, UsageError
from perfkeep.testing.requirements import perf_events, perf_tool, requires, root, tracefs
from support.commands import Cli

pytestmark = [requires(perf_events, tracefs, root), pytest.mark.usefixtures("running")]

SWITCH = "sched:sched_switch"
#: Sleeps a hundred times for each line that it reads, in a thread and in a child as well.
SLEEPER = """
import os, select, sys, threading
def sleep():
    for _ in range(100):
        select.select([], [], [], 0.002)
print(os.getpid(), flush=True)
for line in sys.stdin:
    thread = threading.Thread(target=sleep)
    thread.start()
    if not (child := os.fork()):
        sleep()
        os._exit(0)
    sleep()
    thread.join()
    os.waitpid(child, 0)
    print(threading.get_native_id(), flush=True)
"""


@contextmanager
def sleeper() -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-c", SLEEPER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
        process.kill()


def nap(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    process.stdout.readline()


def naps(data: Data) -> list[int]:
    """Numbers of naps of the threads that took about a hundred."""
    query = """
        SELECT count(*) AS naps FROM off_cpu
        WHERE why = 'sleeping' AND duration_ns > 1900000 GROUP BY tid HAVING naps >= 90
    """
    return [naps for (naps,) in data.sql(query).fetchall()]


def test_time_off_the_cpu_of_a_process_is_there_for_each_thread_and_child() -> None:
    with sleeper() as (process, pid):
        recording = perfkeep.start("some", [SWITCH], pid=pid, ring="1M")
        nap(process)
        with recording.snapshot() as snapshot:
            data = snapshot.tables()
    assert len(naps(data)) == 3
    # What is between two times off the CPU is time on it: they do not overlap.
    query = """
        SELECT count(*) FROM (SELECT start, lag(start + duration_ns) OVER w AS before FROM off_cpu
                              WINDOW w AS (PARTITION BY tid ORDER BY start))
        WHERE start <= before
    """
    assert data.sql(query).fetchall() == [(0,)]


def test_time_off_the_cpu_of_a_cgroup_is_there() -> None:
    try:
        with cgroup_directory("/") as directory:
            top = Path(f"/proc/self/fd/{directory.fileno()}").readlink()
    except UsageError:
        pytest.skip("there is no cgroup with the perf_event controller")
    cgroup = top / f"perfkeep-switches-{id(sleeper)}"
    cgroup.mkdir()
    try:
        with sleeper() as (process, pid):
            (cgroup / "cgroup.procs").write_text(str(pid))
            recording = perfkeep.start("group", [SWITCH], cgroup=str(cgroup), ring="1M")
            nap(process)
            with recording.snapshot() as snapshot:
                assert len(naps(snapshot.tables())) == 3
            (top / "cgroup.procs").write_text(str(pid))
    finally:
        cgroup.rmdir()


def test_waiting_for_a_cpu_is_refused_for_some_tasks(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "some.data"
    with sleeper() as (process, pid):
        recording = perfkeep.start("some", [SWITCH, "sched:sched_wakeup"], pid=pid, ring="1M")
        nap(process)
        recording.snapshot(str(path)).close()
    done = cli("sql", path, "SELECT * FROM run_queue")
    assert done.code == 1 and "run_queue: needs every sample of sched:sched_switch" in done.err
    assert "run_queue" not in cli("sql", path, "--tables").out
    assert cli("sql", path, "SELECT count(*) > 200 AS some FROM off_cpu", "--json").json == [
        {"some": True}
    ]


def test_a_filter_on_the_switches_of_all_tasks_is_refused(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "filtered.data"
    with sleeper() as (process, pid):
        recording = perfkeep.start("some", [(SWITCH, f"prev_pid == {pid}")], ring="1M")
        nap(process)
        recording.snapshot(str(path)).close()
    for view in ("off_cpu", "run_queue"):
        done = cli("sql", path, f"SELECT count(*) FROM {view}")
        assert done.code == 1 and f"{view}: needs every sample" in done.err


@requires(perf_tool)
def test_a_file_of_perf_record_of_one_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.data"
    command = ["perf", "record", "-q", "-e", SWITCH, "-o", str(path), sys.executable, "-c"]
    sleeps = "import select\nfor _ in range(100): select.select([], [], [], 0.002)"
    subprocess.run([*command, sleeps], check=True, capture_output=True)
    with pytest.raises(PerfkeepError, match="off_cpu: needs every sample of sched:sched_switch"):
        perfkeep.read(str(path)).sql("SELECT count(*) FROM off_cpu").fetchall()


@requires(perf_tool)
def test_stock_perf_reads_the_records_beside_the_samples(tmp_path: Path) -> None:
    path = tmp_path / "some.data"
    with sleeper() as (process, pid):
        recording = perfkeep.start("some", [SWITCH], pid=pid, ring="1M")
        nap(process)
        recording.snapshot(str(path)).close()
    done = subprocess.run(
        ["perf", "script", "--show-switch-events", "-i", str(path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == "" and done.stdout.count("PERF_RECORD_SWITCH IN") >= 300


def test_the_views_find_a_tracepoint_that_was_renamed() -> None:
    with sleeper() as (process, pid):
        recording = perfkeep.start("some", [f"{SWITCH}/name=foo/"], pid=pid, ring="1M")
        nap(process)
        with recording.snapshot() as snapshot:
            data = snapshot.tables()
    assert SWITCH not in data.tables and naps(data)
