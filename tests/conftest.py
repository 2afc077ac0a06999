"""What every test gets: an instance of its own that no other test can reach, and a look
afterwards for file descriptors and processes that it left behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from perfkeep.client.connection import disconnect
from perfkeep.kernel.syscalls import mount, umount
from support import commands, waiting
from support.commands import Cli
from support.instance import Running, daemons_of
from support.processes import (
    belongs_to,
    describe,
    end,
    open_files,
    parent_of,
    processes,
    wait_until_gone,
)
from support.waiting import Eventually

TRACEFS = Path("/sys/kernel/tracing")

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
    """Polls until a condition holds, or fails the test at a deadline."""
    return waiting.eventually


@pytest.fixture
def cli(instance: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a verb in this process, on this test's instance."""
    return commands.cli(capsys)


@pytest.fixture
def running(instance: Path) -> Iterator[Running]:
    """This test's instance; the process's connection to it is closed afterwards."""
    yield Running(instance)
    disconnect()
