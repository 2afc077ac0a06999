"""What the faults happen to: an instance, a recording of a numbered heartbeat, and one who counts."""

from __future__ import annotations

import mmap
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

import perfkeep
from bench.ground import EVENT, instance
from perfkeep.abi.records import Record
from perfkeep.client.connection import call, disconnect
from perfkeep.client.snapshot import Snapshot
from perfkeep.errors import PerfkeepError
from perfkeep.formats.perf_data import reader
from perfkeep.records.sample import Layout
from perfkeep.wire import messages

T = TypeVar("T")

NAME = "heart"
_FIRST = 0x40000000
#: Of the recording, unless it is asked for another.
_CLOCK = time.CLOCK_MONOTONIC
#: Longer than anything here may take.
PATIENCE_S = 30.0

# Each call carries a number, and the number of the last one stands in memory that we share.
_HEART = """
import ctypes, mmap, os, sys, time
shared = mmap.mmap(int(sys.argv[1]), 4096)
pause, first, n = float(sys.argv[2]), int(sys.argv[3]), 0
getpriority = ctypes.CDLL(None).getpriority
with open("/proc/self/timerslack_ns", "w") as slack:
    slack.write("1")
# A CPU that comes back is recorded again after a tenth of a second, which is a gap, and told.
os.sched_setaffinity(0, [0])
parent = os.getppid()
while os.getppid() == parent:
    n += 1
    getpriority(0, first + n)
    shared[:8] = n.to_bytes(8, "little")
    time.sleep(pause)
"""


class Beat(NamedTuple):
    """A sample, with the time that the kernel gave it."""

    number: int
    time_ns: int


class Lost(AssertionError):
    """Something that must hold does not."""


class Heart:
    """A process that makes numbered calls until it is ended."""

    def __init__(self, pause_s: float) -> None:
        fd = os.memfd_create("heart")
        os.ftruncate(fd, 4096)
        self._shared = mmap.mmap(fd, 4096)
        command = [sys.executable, "-I", "-S", "-c", _HEART, str(fd), str(pause_s), str(_FIRST)]
        self.process = subprocess.Popen(command, pass_fds=[fd])
        os.close(fd)

    @property
    def beats(self) -> int:
        """The number of the last call that has returned."""
        return int(struct.unpack_from("<Q", self._shared)[0])

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._shared.close()


class World:
    """An instance with a recording of a heartbeat, and what was seen of it so far.

    Attributes:
        seen: every beat up to this number was found in some snapshot.
        checked: samples that were compared.
    """

    def __init__(self, socket: str, folder: str, heart: Heart) -> None:
        self.socket = socket
        self.spill = f"{folder}/spill"
        self.heart = heart
        self.seen = 0
        self.checked = 0
        #: When the last snapshot that was checked was asked for.
        self._asked_ns = 0
        self.recording = perfkeep.start(
            NAME,
            [(EVENT, f"common_pid == {heart.process.pid}")],
            ring="4M",
            spill=self.spill,
            spill_every="500ms",
        )
        self._first = self.recording.info
        self._killed: set[int] = set()
        self._before = 0  # beats that were not counted: from before the rings began
        self._begin()

    # --- processes ------------------------------------------------------------------------------

    def pids(self) -> tuple[int, int]:
        """Broker and keeper, once both are there and answer."""

        def find() -> tuple[int, int] | None:
            with suppress(OSError):
                status = cast(messages.Status, call("GetStatus", messages.Nothing())[0])
                found = status.broker.pid, status.keeper.pid
                if not self._killed.intersection(found) and all(map(_alive, found)):
                    return found
            disconnect()
            return None

        return until(find, "broker and keeper are back")

    def kill(self, *pids: int) -> None:
        """SIGKILL, to all of them in the same moment."""
        for number in (signal.SIGSTOP, signal.SIGKILL) if len(pids) > 1 else (signal.SIGKILL,):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        self._killed.update(pids)

    # --- looking --------------------------------------------------------------------------------

    def check(self) -> None:
        """Nothing is missing since the last time, and the recording is what it was.

        Raises:
            Lost: what is.
        """
        beats, asked_ns = self.heart.beats, time.clock_gettime_ns(_CLOCK)
        with again(lambda: self.recording.snapshot()) as snapshot:
            found = self.beats_in(snapshot)
        numbers = [one.number for one in found]
        self._check_times(found)
        self._asked_ns = asked_ns
        if not numbers or numbers[-1] < beats:
            raise Lost(f"beat {beats} is not there; the last is {numbers[-1:] or None}")
        if numbers[0] > self.seen + 1:
            raise Lost(f"beats {self.seen + 1} to {numbers[0] - 1} are missing")
        whole = list(range(numbers[0], numbers[-1] + 1))
        if numbers != whole:
            gone = sorted(set(whole) - set(numbers))
            raise Lost(f"{len(gone)} beats are missing, the first is {gone[0]}")
        self.checked += numbers[-1] - self.seen
        self.seen = numbers[-1]
        info = again(lambda: self.recording.info)
        for what in ("name", "id", "owner", "mode", "created_ns", "state"):
            if getattr(info, what) != getattr(self._first, what):
                raise Lost(f"{what} was {getattr(self._first, what)!r}, is {getattr(info, what)!r}")
        low = self.heart.beats
        (event,) = again(lambda: self.recording.stat()).events
        counted = self._before + sum(one.value for one in event.per_cpu)
        high = self.heart.beats + 1
        if not low <= counted <= high:
            raise Lost(f"between {low} and {high} beats, and {counted} were counted")

    def _check_times(self, found: list[Beat]) -> None:
        """What was not there the last time came after that; and later beats later."""
        times = [one.time_ns for one in found]
        if times != sorted(times):
            raise Lost("times of beats are out of order")
        new = [one.time_ns for one in found if one.number > self.seen]
        now = time.clock_gettime_ns(_CLOCK)
        if new and not self._asked_ns <= new[0] <= new[-1] <= now:
            times_ns = f"from {new[0]} to {new[-1]} ns"
            raise Lost(f"beats that came between {self._asked_ns} and {now} ns are {times_ns}")

    def beats_in(self, snapshot: Snapshot) -> list[Beat]:
        """The beats that a snapshot holds, in order."""
        with snapshot.open() as file:
            data = reader.parse(memoryview(file.read()))
        layout, found = Layout(data.events[0].attr), []
        for kind, record in data.records():
            if kind == Record.SAMPLE:
                sample = layout.decode(record)
                # common fields, number of the call, which, who
                number = int(struct.unpack_from("=i", sample.raw, 24)[0]) - _FIRST
                found.append(Beat(number, sample.time or 0))
        return sorted(found)

    def begin_anew(self) -> None:
        """Both have died: what was before is on disk, and the rings begin again."""
        info = self.recording.info
        gaps = [gap for gap in info.gaps if gap.cpus is None]
        if not gaps or gaps[-1].until_ns is None:
            raise Lost(f"the time between is not told of: {info.gaps}")
        self._begin()

    def _begin(self) -> None:
        """From the first beat that the rings hold."""

        def first() -> int | None:
            with again(lambda: self.recording.snapshot()) as snapshot:
                return next((one.number for one in self.beats_in(snapshot)), None)

        self.seen = self._before = until(first, "it records") - 1


def _alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def until(find: Callable[[], T | None], what: str) -> T:
    """Ask until there is an answer.

    Raises:
        Lost: it never came.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = find()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise Lost(f"{what}: not within {PATIENCE_S:.0f} s")
        select.select([], [], [], 0.005)


def again(question: Callable[[], T]) -> T:
    """Ask, and ask again when the daemon that was to answer has died under it: that is clean."""

    def ask() -> T | None:
        try:
            return question()
        except PerfkeepError:
            disconnect()
            return None

    return until(ask, "an answer")


@contextmanager
def world(pause_s: float = 0.0005) -> Iterator[World]:
    """Everything that a round of faults needs; all of it is ended afterwards."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pkc-"))
        socket = stack.enter_context(instance())
        heart = Heart(pause_s)
        stack.callback(heart.end)
        made = World(socket, folder, heart)
        yield made
        for one in again(perfkeep.recordings):
            one.claim()
