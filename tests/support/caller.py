"""A process whose system calls are numbered, so that a missing sample is noticed."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from perfkeep.abi.records import Record
from perfkeep.client.snapshot import Snapshot
from perfkeep.formats.perf_data import PerfData, reader
from perfkeep.records.sample import Layout

TRACEFS = Path("/sys/kernel/tracing")

#: The tracepoint of the numbered calls.
CALLS = "syscalls:sys_enter_getpriority"

# Each system call carries a number, so a sample that is missing is seen. Commands: how many calls
# and who makes them; `run` calls until the next command.
_CALLER = """
import os, select, sys, threading
from contextlib import suppress

number, lock = 0, threading.Lock()

def call(count):
    global number
    for _ in range(count):
        with lock, suppress(ProcessLookupError):
            number += 1
            os.getpriority(os.PRIO_PROCESS, 0x40000000 + number)

def helper(wanted, done):
    while (count := int(os.read(wanted, 20) or 0)):
        call(count)
        os.write(done, b"!")

if sys.argv[1] != "any":
    os.sched_setaffinity(0, [int(sys.argv[1])])
to_helper, from_helper = os.pipe(), os.pipe()
thread = threading.Thread(target=helper, args=(to_helper[0], from_helper[1]), daemon=True)
thread.start()
print("ready", flush=True)
for line in iter(sys.stdin.readline, ""):
    verb, amount = line.split()
    if verb == "call":
        call(int(amount))
    elif verb == "thread":
        os.write(to_helper[1], amount.encode())
        os.read(from_helper[0], 1)
    elif verb == "fork":
        pid = os.fork()
        if not pid:
            call(int(amount))
            os._exit(0)
        os.waitpid(pid, 0)
        number += int(amount)
    elif verb == "run":
        print("running", flush=True)
        while not select.select([0], [], [], int(amount) / 1e6)[0]:
            call(1)
        continue
    print(number, flush=True)
"""


class Caller:
    """A process whose system calls are numbered.

    Args:
        cpu: on which it stays; None: wherever it likes.
    """

    def __init__(self, cpu: int | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _CALLER, "any" if cpu is None else str(cpu)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def calls(self) -> tuple[str, str]:
        """The event of this process's calls alone, but those of its threads and children: nobody else
        who makes such calls overwrites them.
        """
        return CALLS, f"common_pid == {self.pid}"

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, verb: str, amount: int) -> int:
        """`call`, `thread` (another thread calls) or `fork` (a child does); gives the number of
        the last call."""
        self._send(verb, amount)
        return int(self._answer())

    def _send(self, verb: str, amount: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{verb} {amount}\n")
        self.process.stdin.flush()

    @contextmanager
    def calling(self, every_us: int = 0) -> Iterator[None]:
        """It calls again and again while the block runs."""
        self._send("run", every_us)
        assert self._answer() == "running"
        try:
            yield
        finally:
            self.ask("call", 0)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def numbers_in(self, snapshot: Snapshot) -> list[int]:
        """Numbers of this process's calls that a snapshot holds, sorted; each is there once."""
        with snapshot.open() as file:
            return self.numbers_of(reader.parse(memoryview(file.read())))

    def numbers_of(self, data: PerfData) -> list[int]:
        """The same of a file."""
        event = next(event for event in data.events if event.attr.config == tracepoint_id(CALLS))
        layout, ids = Layout(event.attr), set(event.all_ids)
        numbers = []
        for kind, record in data.records():
            if kind == Record.SAMPLE and layout.id(record) in ids:
                sample = layout.decode(record)
                if sample.pid == self.pid:
                    # common fields, number of the call, which, who
                    numbers.append(struct.unpack_from("=i", sample.raw, 24)[0] - 0x40000000)
        assert len(numbers) == len(set(numbers))
        return sorted(numbers)


def tracepoint_id(tracepoint: str) -> int:
    return int((TRACEFS / "events" / tracepoint.replace(":", "/") / "id").read_text())


class Callers(Protocol):
    """The `caller` fixture: starts a caller that ends with the test."""

    def __call__(self, cpu: int | None = None) -> Caller: ...
