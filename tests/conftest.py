"""What every test gets: an instance of its own that no other test can reach, and a look
afterwards for file descriptors and processes that it left behind.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import hypothesis
import pytest

from perfkeep.client.connection import disconnect
from perfkeep.kernel.syscalls import mount, umount

TRACEFS = Path("/sys/kernel/tracing")

Eventually = Callable[[Callable[[], object]], None]

#: How long a process that was told to end may take.
PATIENCE_S = 10.0

# The machine that runs the tests has other things to do: an example may take its time.
hypothesis.settings.register_profile("perfkeep", deadline=None)
hypothesis.settings.load_profile("perfkeep")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """What runs beside what, when there are several processes (pytest -n).

    Tests with real events run one after another, in one process: they take CPUs offline, fill
    rings and count what happens on the whole machine. The tests of any other file stay together
    and share what is costly to make, such as a wheel.

    Not by --dist=loadgroup: with pytest 9.2, xdist 3.8 ignores groups
    (https://github.com/pytest-dev/pytest-xdist/issues/1386).
    """
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class ByRoom(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            folders = set(path.split("/")[:-1])
            real = "unit" not in folders and folders & {"kernel", "programs"}
            return "real events" if real else path

    return ByRoom(config, log)


# --- file descriptors -------------------------------------------------------------------------


def open_files() -> Counter[str]:
    """What this process has open, by what /proc says it is, and how often."""
    found: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the fd of the listing itself
            found[os.readlink(f"/proc/self/fd/{number}")] += 1
    return found


# --- processes --------------------------------------------------------------------------------


def processes() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdecimal()}


def parent_of(pid: int) -> int:
    """0 when the process has gone."""
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[1])
    return 0


def belongs_to(pid: int, folder: str) -> bool:
    """Whether the process was started with an instance in `folder`."""
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
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        return f"{pid} ({words.strip() or Path(f'/proc/{pid}/comm').read_text().strip()})"
    return f"{pid} (gone meanwhile)"


def wait_until_gone(pids: Iterable[int], seconds: float) -> list[int]:
    """Those that are still there when the time is over."""
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
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """Set up first and looked at last. The test's instance is in a folder of its own, so that
    no test ever meets the recordings of the machine it runs on."""
    folder = tempfile.mkdtemp(prefix="pk-")
    before = os.environ.get("PERFKEEP_SOCKET")
    os.environ["PERFKEEP_SOCKET"] = f"{folder}/s"
    files, running = open_files(), processes()
    try:
        yield
        new = processes() - running
        children = sorted(pid for pid in new if parent_of(pid) == os.getpid())
        # What was told to end and is no child of ours cannot be waited for by the test.
        detached = [pid for pid in new if pid not in children and belongs_to(pid, folder)]
        detached = wait_until_gone(sorted(detached), 1.0)
        leaks = [f"child {describe(pid)} was not waited for" for pid in children]
        leaks += [f"process {describe(pid)} goes on" for pid in detached]
        leaks += [f"{count} × {name} is open" for name, count in (open_files() - files).items()]
        end(children + detached, signal.SIGKILL)
        if leaks:
            pytest.fail("left behind: " + "; ".join(leaks), pytrace=False)
    finally:
        if before is None:
            os.environ.pop("PERFKEEP_SOCKET", None)
        else:
            os.environ["PERFKEEP_SOCKET"] = before
        shutil.rmtree(folder, ignore_errors=True)


# --- what a test may ask for ------------------------------------------------------------------


def daemons_of(folder: str) -> list[int]:
    """The brokers of the instances in `folder`, or, where no broker runs, their keepers."""
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


@pytest.fixture
def instance() -> Iterator[Path]:
    """The socket of this test's own instance, which PERFKEEP_SOCKET names already. The broker and
    the keeper that the test started are ended with it."""
    socket = Path(os.environ["PERFKEEP_SOCKET"])
    folder = str(socket.parent)
    yield socket
    disconnect()
    deadline = time.monotonic() + PATIENCE_S
    # A broker that is told to end takes its keeper along. Killed alone, each starts the other
    # anew: so look until nobody is there.
    while pids := daemons_of(folder):
        late = time.monotonic() > deadline
        end(pids, signal.SIGKILL if late else signal.SIGTERM)
        wait_until_gone(pids, 1.0)
        if late:
            logs = [log.read_text() for log in socket.parent.glob("*.log")]
            pytest.fail("the instance did not end when told to; its log:\n" + "\n".join(logs))


@pytest.fixture
def tracefs_mounted() -> Iterator[Path]:
    """tracefs at its usual place; taken away again if this test put it there."""
    if (TRACEFS / "events").is_dir():
        yield TRACEFS
        return
    mount("tracefs", str(TRACEFS), "tracefs")
    try:
        yield TRACEFS
    finally:
        umount(str(TRACEFS))


@pytest.fixture
def eventually() -> Eventually:
    """Asks again and again until the answer is yes, or 15 s have passed."""

    def wait(holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + 15
        while not holds():
            assert time.monotonic() < deadline, "it did not come true within 15 s"
            select.select([], [], [], 0.005)

    return wait


class Running:
    """The instance that this test talks to; its daemons start with the first request."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def pids(self) -> tuple[int, int]:
        """Of the broker and of the keeper, as the lock names them."""
        deadline = time.monotonic() + 15
        # While it is being written it is empty for a moment.
        while len(words := Path(f"{self.socket}.lock").read_text().split()) < 4:
            assert time.monotonic() < deadline, "the lock names nobody"
        return int(words[1]), int(words[3])


@pytest.fixture
def running(instance: Path) -> Iterator[Running]:
    """This test's instance; the process's connection to it is closed afterwards."""
    yield Running(instance)
    disconnect()
