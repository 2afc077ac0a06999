"""Recordings of what the kernel counts in software, side by side: the kernel mixes up their ids."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import perfkeep
from perfkeep.analysis.chains import UPPER_HALF
from perfkeep.analysis.data import Data
from perfkeep.client.look import look
from perfkeep.testing.requirements import perf_events, perf_tool, requires, root

pytestmark = [requires(perf_events, perf_tool, root), pytest.mark.usefixtures("running")]

EVENTS = ["page-faults/period=1/u", "context-switches/period=1/k"]


class Worker:
    """A shell that starts programs when it is told to. Recordings are of it alone: on a machine whose
    other processes fault and switch as well, the rings hold all of its samples.
    """

    def __init__(self) -> None:
        loop = "for i in 1 2 3 4 5 6 7 8 9; do ls / >/dev/null; done; echo done"
        self._shell = subprocess.Popen(
            ["sh", "-c", f"while read line; do {loop}; done"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid = self._shell.pid

    def work(self) -> None:
        assert self._shell.stdin is not None and self._shell.stdout is not None
        self._shell.stdin.write("\n")
        self._shell.stdin.flush()
        assert self._shell.stdout.readline() == "done\n"

    def end(self) -> None:
        self._shell.communicate()


@pytest.fixture
def worker() -> Iterator[Worker]:
    shell = Worker()
    yield shell
    shell.end()


def check(recording: perfkeep.Recording, path: Path) -> Data:
    recording.snapshot(str(path))
    script = subprocess.run(["perf", "script", "-i", path], capture_output=True, text=True)
    data = look(str(path))
    complaint = "" if data.lost else script.stderr  # of what was lost perf tells as well
    assert (script.returncode, complaint) == (0, "")
    assert not data.unknown and not data.malformed
    assert script.stdout.count("page-faults") >= len(data.tables["page_faults_u"])
    return data


def check_kinds(data: Data) -> None:
    assert not data.lost
    faults, switches = data.tables["page_faults_u"], data.tables["context_switches_k"]
    assert len(faults) > 500 and len(switches) > 9
    # Where each was taken says which it is.
    for table, kernel in ((faults, False), (switches, True)):
        ip = table.get("ip")
        assert ip is not None and {one >= UPPER_HALF for one in ip.values.tolist()} == {kernel}


@pytest.mark.parametrize("chains", [False, True])
def test_each_sample_is_its_own_event_s(tmp_path: Path, worker: Worker, chains: bool) -> None:
    some = [
        perfkeep.start(name, EVENTS, pid=worker.pid, ring="1M", call_chains=chains)
        for name in ("a", "b")
    ]
    worker.work()
    for number, recording in enumerate(some):
        check_kinds(check(recording, tmp_path / f"{number}.data"))


@pytest.mark.parametrize("order", [(False, True), (True, False)], ids=["flat first", "deep first"])
def test_none_is_lost_where_one_records_more_than_the_other(
    tmp_path: Path, worker: Worker, order: tuple[bool, bool]
) -> None:
    some = [
        perfkeep.start(f"r{number}", EVENTS[:1], pid=worker.pid, ring="1M", call_chains=chains)
        for number, chains in enumerate(order)
    ]
    worker.work()
    for number, recording in enumerate(some):
        recording.disable()
        data = check(recording, tmp_path / f"{number}.data")
        (counts,) = recording.stat().events
        counted = sum(one.value for one in counts.per_cpu)
        # One or two are counted while the recording begins or ends.
        assert counted - 9 <= len(data.tables["page_faults_u"]) <= counted and counted > 500


def test_also_beside_stock_perf_and_when_it_joined_later(tmp_path: Path, worker: Worker) -> None:
    recording = perfkeep.start("flight", EVENTS[:1], pid=worker.pid, ring="1M")
    recording.add(EVENTS[1:])
    command = ["perf", "record", "-q", "-a", "-e", "page-faults", "-e", "context-switches"]
    out = str(tmp_path / "perf.data")
    subprocess.run(
        [*command, "-c", "1", "-o", out, "--", "sh", "-c", "for i in 1 2 3 4 5; do ls /; done"],
        check=True, capture_output=True,
    )  # fmt: skip
    worker.work()
    check_kinds(check(recording, tmp_path / "x.data"))
