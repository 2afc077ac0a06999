"""The instance that a test talks to: its daemons, its status, its recordings."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from pathlib import Path

import perfkeep
from perfkeep.client.connection import call, disconnect
from perfkeep.wire import messages

from .processes import belongs_to, end, processes, wait_until_gone


class Running:
    """The instance that this test talks to; its daemons start with the first request."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def pids(self) -> tuple[int, int]:
        """Pids of the broker and of the keeper, from the lock file."""
        deadline = time.monotonic() + 15
        # While it is being written it is empty for a moment.
        while len(words := Path(f"{self.socket}.lock").read_text().split()) < 4:
            assert time.monotonic() < deadline, "the lock names nobody"
        return int(words[1]), int(words[3])


def daemons_of(folder: str) -> list[int]:
    """Brokers of the instances in `folder`, or, where no broker runs, their keepers."""
    brokers, keepers = [], []
    for pid in processes():
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            # A keeper's command line ends with that of the broker it would start.
            if b"perfkeep/keeper/__main__.py" in command and belongs_to(pid, folder):
                keepers.append(pid)
            elif b"perfkeep/broker/__main__.py" in command and belongs_to(pid, folder):
                brokers.append(pid)
    return brokers or keepers


def kill_both(running: Running) -> None:
    """Kill broker and keeper at once, so that neither can start the other, and wait for their end."""
    pids = running.pids()
    end(pids, signal.SIGSTOP)
    end(pids, signal.SIGKILL)
    assert not wait_until_gone(pids, 10)
    disconnect()


def status() -> messages.Status:
    """The broker's status."""
    answer, _ = call("GetStatus", messages.Nothing())
    assert isinstance(answer, messages.Status)
    return answer


def names() -> list[str]:
    """Names of the instance's recordings."""
    return [recording.name for recording in perfkeep.recordings()]
