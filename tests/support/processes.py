"""Processes and file descriptors of the machine, as /proc shows them."""

from __future__ import annotations

import os
import select
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def open_files() -> Counter[str]:
    """Open files of this process by the target of their link in /proc, with their number."""
    return Counter(files_of(os.getpid()))


def files_of(pid: int) -> list[str]:
    """The open files of the process, each fd by what /proc says it is."""
    files = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile, as the fd of the listing
            files.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return files


def fd_count(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def processes() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdecimal()}


def parent_of(pid: int) -> int:
    """0 when the process has gone."""
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_bytes()  # a name may be any bytes
        return int(stat.rpartition(b")")[2].split()[1])
    return 0


def belongs_to(pid: int, folder: str) -> bool:
    """True if the process was started with an instance in `folder`."""
    deadline = time.monotonic() + 0.1
    with suppress(OSError):
        os.readlink(f"/proc/{pid}/exe")  # fails for threads of the kernel and for the dead
        environment = b""
        # In the middle of execve(2) a process has no environment for a moment.
        while not environment and time.monotonic() < deadline:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        return f"PERFKEEP_SOCKET={folder}/".encode() in environment
    return False


def describe(pid: int) -> str:
    """The pid with the process's command line."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").strip()
        words = words or Path(f"/proc/{pid}/comm").read_bytes().strip()
        return f"{pid} ({words.decode(errors='replace')})"
    return f"{pid} (gone meanwhile)"


def wait_until_gone(pids: Iterable[int], seconds: float) -> list[int]:
    """Processes that still exist at the deadline."""
    deadline = time.monotonic() + seconds
    staying = []
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                staying.append(pid)
        finally:
            os.close(fd)
    return staying


def end(pids: Iterable[int], number: int) -> None:
    """Send a signal to each process that still exists."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
