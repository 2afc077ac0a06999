"""C programs that know nothing of perfkeep, and clients of the contract among them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Protocol

from .commands import PERFKEEP

EXEC = [*PERFKEEP, "exec", "--"]

#: The value in the kernel's header and the man page.
PERSISTENT = 0x706B6570
SOFTWARE, CPU_CLOCK, TASK_CLOCK, DUMMY = 1, 0, 1, 9
UNCLAIM, CLAIM = 0x2408, 0x2409
ENABLE, DISABLE, RESET, PERIOD, SET_OUTPUT = 0x2400, 0x2401, 0x2403, 0x40082404, 0x2405
PAUSE_OUTPUT = 0x40042409
RING = 512 << 10


class Program:
    """A running client.c: asked a line, it answers with a number."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def begin(self, words: str) -> None:
        """Ask without waiting for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()

    def answer(self) -> int:
        line = self._line()
        assert line, f"the program ended: {self.process.wait()}"
        return int(line)

    def ask(self, words: str) -> int:
        """The value of the system call, or -errno."""
        self.begin(words)
        return self.answer()

    def open(self, type: int, config: int, cpu: int = 0, *fields: str, pid: int = -1) -> int:
        return self.ask(f"open {type:#x} {config} {cpu} {pid} 0 -1 {' '.join(fields)}")

    def reopen(self, id: int, cpu: int = 0, *fields: str) -> int:
        return self.open(PERSISTENT, id, cpu, *fields)

    def ioctl(self, fd: int, command: int, argument: int = 0) -> int:
        return self.ask(f"ioctl {fd} {command:#x} {argument}")

    def unclaimed(self, cpu: int = 0) -> tuple[int, int]:
        """A new persistent event: its fd and its id."""
        fd = self.open(SOFTWARE, CPU_CLOCK, cpu)
        assert fd >= 0
        id = self.ioctl(fd, UNCLAIM)
        assert id > 0
        return fd, id

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def compile_c(source: Path, target: Path, *options: str) -> Path:
    """Build a C program.

    Raises:
        CalledProcessError: with what the compiler said on stderr.
    """
    command = ["cc", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror", "-O1", "-pthread"]
    subprocess.run([*command, *options, "-o", str(target), str(source)], check=True)
    return target


def supervisors(socket: Path) -> list[int]:
    """Processes of this instance that hold a listener."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if f"PERFKEEP_SOCKET={socket}".encode() in Path(f"/proc/{name}/environ").read_bytes():
                files = os.listdir(f"/proc/{name}/fd")
                links = {os.readlink(f"/proc/{name}/fd/{file}") for file in files}
                found += [int(name)] if "anon_inode:seccomp notify" in links else []
        except OSError:
            continue
    return found


class Launch(Protocol):
    """The `launch` fixture: starts a client that ends with the test."""

    def __call__(self, linked: str = "dynamic", under: list[str] = EXEC) -> Program: ...
