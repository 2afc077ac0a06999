"""Any number of readers follow a recording at once: each gets everything once, in order, or is told
how much it lost.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial

import pytest

import perfkeep
from perfkeep.analysis import symbolize
from perfkeep.client.connection import disconnect
from perfkeep.client.following import Follower
from perfkeep.symbols import elf
from perfkeep.symbols.identity import Identity
from perfkeep.testing.requirements import perf_events, requires, root, tracefs
from support.caller import CALLS, Caller, Callers
from support.commands import Cli
from support.instance import Running
from support.nobody import AsNobody
from support.waiting import Eventually

pytestmark = [
    requires(perf_events, tracefs, root),
    pytest.mark.usefixtures("running", "tracefs_mounted"),
]


class Reader:
    """Collects the numbers of a caller's calls, as they come."""

    def __init__(self, name: str, caller: Caller, reach: int | None = None) -> None:
        self.follower = Follower(name, reach=reach)
        self.pid = caller.pid
        self.numbers: list[int] = []
        self.times: list[int] = []

    def has(self, number: int) -> bool:
        return number in self.look()

    def look(self) -> list[int]:
        data = self.follower.poll()
        if data is not None:
            table = data.table(CALLS)
            for sample in data.samples(CALLS):
                self.times.append(sample.time or 0)
                if sample.pid == self.pid:
                    self.numbers.append(int(str(sample["who"])) - 0x40000000)
            assert len(table) == len(list(data.samples(CALLS)))
        return self.numbers


def test_several_readers_get_every_sample_once_and_in_order(
    caller: Callers, eventually: Eventually
) -> None:
    one = caller(0)
    perfkeep.start("flight", [one.calls], ring="1M")
    readers = [Reader("flight", one), Reader("flight", one)]
    for _ in range(5):
        last = one.ask("call", 500)
        readers[0].look()
    late = Reader("flight", one)
    for reader in [*readers, late]:
        eventually(partial(reader.has, last))
        assert reader.numbers == list(range(1, 2501))
        assert reader.times == sorted(reader.times)
        assert reader.follower.lost_bytes == 0
        reader.follower.close()


def test_who_comes_too_late_is_told_how_much_it_lost_and_others_lose_nothing(
    caller: Callers, eventually: Eventually
) -> None:
    one = caller(0)
    perfkeep.start("flight", [one.calls], ring="64K")
    slow, fast = Reader("flight", one), Reader("flight", one)
    for _ in range(20):
        last = one.ask("call", 200)
        fast.look()
    for reader in (slow, fast):
        eventually(partial(reader.has, last))
        reader.follower.close()
    assert fast.numbers == list(range(1, 4001)) and fast.follower.lost_bytes == 0
    assert slow.numbers == list(range(slow.numbers[0], 4001)) and slow.numbers[0] > 1
    size = 64 << 10
    assert slow.follower.lost_bytes > 20 * 200 * 56 - size


def test_a_reader_that_reaches_back_a_little_begins_with_the_newest_and_loses_none_after(
    caller: Callers, eventually: Eventually
) -> None:
    one = caller(0)
    perfkeep.start("flight", [one.calls], ring="1M")
    one.ask("call", 5000)
    reader = Reader("flight", one, reach=4096)
    eventually(partial(reader.has, 5000))
    assert 5000 - 4096 // 56 <= reader.numbers[0] <= 4990
    assert reader.follower.lost_bytes < 4096
    lost = reader.follower.lost_bytes
    eventually(partial(reader.has, one.ask("call", 3000)))
    assert reader.numbers == list(range(reader.numbers[0], 8001))
    assert reader.follower.lost_bytes == lost
    reader.follower.close()


def test_tail_begins_with_as_many_samples_as_asked_for_however_far_back_they_lie(
    caller: Callers, cli: Cli
) -> None:
    one, other = caller(0), caller(0)
    perfkeep.start("flight", [CALLS], ring="1M")
    one.ask("call", 20)
    other.ask("call", 8000)
    command = ["tail", "flight", "-F", "tid,trace", "--for", "10ms", "--pid", one.pid]
    ran = cli(*command, "-n", "15")
    assert [int(line.rpartition("0x")[2], 16) - 0x40000000 for line in ran.out.splitlines()] == [
        *range(6, 21)
    ]
    assert len(cli(*command, "-n", "100").out.splitlines()) == 20


def test_a_reader_does_not_notice_that_the_broker_restarts(
    caller: Callers, running: Running, eventually: Eventually
) -> None:
    one = caller(0)
    perfkeep.start("flight", [one.calls], ring="1M")
    reader = Reader("flight", one)
    one.ask("call", 100)
    eventually(lambda: reader.look() and reader.numbers[-1] == 100)
    before = running.pids()
    os.kill(before[0], signal.SIGKILL)
    disconnect()
    one.ask("call", 100)
    eventually(lambda: reader.look()[-1] == 200)
    assert reader.numbers == list(range(1, 201))
    assert running.pids() != before
    reader.follower.close()


def test_what_was_recorded_last_is_there_though_it_has_been_claimed(caller: Callers) -> None:
    one = caller(0)
    recording = perfkeep.start("flight", [one.calls], ring="64K")
    with recording.follow() as follower:
        one.ask("call", 10)
        recording.claim()
        data = follower.poll()
        assert follower.ended and data is not None
        numbers = [int(str(s["who"])) for s in data.samples(CALLS) if s.pid == one.pid]
        assert [number - 0x40000000 for number in numbers] == list(range(1, 11))
        assert follower.poll() is None


def test_who_may_only_read_is_given_copies(
    caller: Callers, reachable: Running, as_nobody: AsNobody, eventually: Eventually
) -> None:
    one = caller(0)
    recording = perfkeep.start("flight", [one.calls], ring="64K", mode=0o604)
    one.ask("call", 50)

    def follow() -> list[int]:
        reader = Reader("flight", one)
        assert not reader.follower._mapped
        eventually(reader.look)
        reader.follower.close()
        return reader.numbers

    disconnect()
    assert as_nobody(follow) == list(range(1, 51))
    recording.claim()


def test_tail_prints_the_last_ones_and_goes_on_until_it_is_over(caller: Callers) -> None:
    one = caller(0)
    recording = perfkeep.start("flight", [one.calls], ring="64K")
    one.ask("call", 20)
    command = [sys.executable, "-m", "perfkeep", "tail", "flight", "-n", "5", "--pid", str(one.pid)]
    with subprocess.Popen(
        [*command, "-F", "tid,trace", "--every", "10ms"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as tail:  # fmt: skip
        assert tail.stdout is not None
        first = [tail.stdout.readline() for _ in range(5)]
        one.ask("call", 3)
        more = [tail.stdout.readline() for _ in range(3)]
        recording.claim()
        _, err = tail.communicate(timeout=30)
    assert tail.returncode == 0 and err == "perfkeep: flight has ended\n"
    assert [int(line.rpartition("0x")[2], 16) - 0x40000000 for line in first + more] == [
        *range(16, 21), 21, 22, 23,
    ]  # fmt: skip


def test_a_process_with_several_threads_is_followed(
    caller: Callers, eventually: Eventually
) -> None:
    process = caller()
    perfkeep.start("threads", [CALLS], pid=process.pid, ring="64K")
    reader = Reader("threads", process)
    try:
        process.ask("call", 3)
        process.ask("thread", 3)
        eventually(lambda: reader.has(6))
        assert sorted(reader.numbers) == [1, 2, 3, 4, 5, 6]
    finally:
        reader.follower.close()


def test_a_reader_reads_the_symbols_of_each_file_once(
    caller: Callers, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths: list[str] = []

    def image(path: str, identity: Identity) -> elf.Image:
        paths.append(path)
        return elf.image(path, identity)

    monkeypatch.setattr(symbolize, "image", image)
    task = caller(0)
    perfkeep.start("chains", [task.calls], ring="1M", call_chains=True)
    first = 0
    with Follower("chains") as follower:
        for _ in range(3):
            task.ask("call", 10)
            frames: list[object] = []

            def has_frames(frames: list[object] = frames) -> bool:
                if (data := follower.poll()) is not None:
                    frames += [sample.callchain for sample in data.samples(CALLS)]
                return bool(frames)

            eventually(has_frames)
            first = first or len(paths)
    assert first and len(paths) == len(set(paths))
