"""A running instance is in its sandbox: both daemons, and those that take their place."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

import perfkeep
from perfkeep.abi.seccomp import Capability
from perfkeep.client import connection
from perfkeep.client.connection import call
from perfkeep.kernel import sandbox
from perfkeep.testing.requirements import perf_events, requires, root, tracefs, uprobes
from perfkeep.wire import messages
from support.instance import Running
from support.nobody import NOBODY, AsNobody
from support.waiting import Eventually

pytestmark = [
    requires(perf_events),
    pytest.mark.skipif(
        platform.machine() not in ("x86_64", "aarch64"), reason="no filter for this machine"
    ),
]


def status(pid: int | str) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: text.strip() for key, _, text in (line.partition(":") for line in lines)}


def capabilities(pid: int | str, which: str) -> set[str]:
    bits = int(status(pid)[which], 16)
    known = {one.value: one.name for one in Capability}
    return {known.get(one, str(one)) for one in range(64) if bits >> one & 1}


def names(some: tuple[Capability, ...]) -> set[str]:
    return {one.name for one in some}


def check(broker: int, keeper: int) -> None:
    """Both are inside, in one layer more than this test is."""
    for pid in (broker, keeper):
        found = status(pid)
        assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
        assert int(found["Seccomp_filters"]) == int(status("self")["Seccomp_filters"]) + 1
    if os.geteuid():
        return
    here = capabilities("self", "CapPrm")
    kept, effective = names(sandbox.PERMITTED) & here, names(sandbox.EFFECTIVE) & here
    for pid in (broker, keeper):
        assert capabilities(pid, "CapPrm") == kept
        assert capabilities(pid, "CapBnd") == names(sandbox.PERMITTED) & capabilities(
            "self", "CapBnd"
        )
        assert not capabilities(pid, "CapInh") | capabilities(pid, "CapAmb")
    assert capabilities(keeper, "CapEff") == kept  # sandbox says why
    # Where perfkeep lies below a user's folder the broker may need one more.
    assert capabilities(broker, "CapEff") - {"DAC_READ_SEARCH"} == effective
    paths = [Path(path).resolve() for path in (sys.executable, sandbox.__file__)]
    if not any(up.stat().st_uid for path in paths for up in path.parents):
        assert capabilities(broker, "CapEff") == effective


def replaced(running: Running, who: int, before: tuple[int, int]) -> bool:
    pids: tuple[int, int] = running.pids()
    return pids[who] != before[who] and len(perfkeep.recordings()) == 1


def test_both_are_inside_and_so_are_those_that_take_their_place(
    running: Running, flight: perfkeep.Recording, eventually: Eventually
) -> None:
    check(*running.pids())
    for turn in range(6):
        before = running.pids()
        os.kill(before[turn % 2], signal.SIGKILL)
        eventually(partial(replaced, running, turn % 2, before))
        check(*running.pids())


def test_the_log_and_the_status_say_what_holds(
    running: Running, flight: perfkeep.Recording
) -> None:
    found, _ = call("GetStatus", messages.Nothing())
    assert isinstance(found, messages.Status)
    assert "no_new_privs, system calls filtered, capabilities" in found.sandbox
    assert found.sandbox in Path(found.log).read_text()


def die_together(running: Running) -> None:
    pids = running.pids()
    for number in (signal.SIGSTOP, signal.SIGKILL):  # or one would start the other anew
        for pid in pids:
            os.kill(pid, number)
    connection.disconnect()


@requires(root)
@pytest.mark.parametrize(
    "spec",
    [
        "cpu-clock",
        pytest.param("sched:sched_switch", marks=requires(tracefs)),
        pytest.param(f"uprobe:{os.path.realpath('/bin/true')}:0x2000", marks=requires(uprobes)),
        "mem:0xffffffff81000000/1:w",
    ],
    ids=["of a CPU", "a tracepoint", "a probe", "a breakpoint in the kernel"],
)
def test_an_opener_can_still_do_what_root_can(
    running: Running, eventually: Eventually, spec: str
) -> None:
    try:
        recording = perfkeep.start("flight", [spec], cpus=[0], ring="64K")
    except perfkeep.PerfkeepError as error:
        pytest.skip(f"not to be had here: {error}")
    die_together(running)
    eventually(lambda: not recording.info.problem and recording.info.state == "running")
    check(*running.pids())


@requires(root)
def test_an_opener_can_still_follow_a_process_of_somebody_else(
    running: Running, eventually: Eventually
) -> None:
    with subprocess.Popen(["sleep", "1000"], user=NOBODY, group=NOBODY) as child:
        try:
            recording = perfkeep.start("flight", ["cpu-clock"], pid=child.pid, ring="64K")
            die_together(running)
            eventually(lambda: not recording.info.problem and recording.info.state != "ended")
        finally:
            child.kill()


# --- somebody else's ------------------------------------------------------------------------------

START = """
import os, sys, perfkeep
perfkeep.start("mine", ["task-clock"], pid=os.getppid(), ring="16K")
"""


@pytest.fixture
def user(as_nobody: AsNobody) -> Iterator[tuple[list[str], dict[str, str]]]:
    """How nobody starts Python, with a perfkeep and a place of their own."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [os.path.realpath(sys.executable), f"/usr/bin/{version}"]
    usable = as_nobody(lambda: [one for one in candidates if os.access(one, os.X_OK)])
    if not usable:
        pytest.skip(f"other users may run none of {', '.join(candidates)}")
    if int(Path("/proc/sys/kernel/perf_event_paranoid").read_text()) > 2:
        pytest.skip("kernel.perf_event_paranoid keeps users from recording anything")
    with tempfile.TemporaryDirectory(prefix="pk-") as folder:
        place, runtime = Path(folder), Path(folder) / "run"
        for module in (perfkeep, msgspec):
            source = Path(str(module.__file__)).parent
            shutil.copytree(source, place / source.name)
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        runtime.mkdir(mode=0o700)
        os.chown(runtime, NOBODY, NOBODY)
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": folder,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PERFKEEP_SOCKET": f"{runtime}/s",
        }
        yield [usable[0], "-S", "-c"], environment


@requires(root)
def test_a_user_s_own_instance_is_inside_as_well(
    user: tuple[list[str], dict[str, str]], eventually: Eventually
) -> None:
    python, environment = user
    lock = Path(environment["PERFKEEP_SOCKET"] + ".lock")
    rights: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}

    def pids() -> list[int]:
        words = lock.read_text().split()
        return [int(word) for word in words if word.isdecimal()]

    def inside(who: int, before: int) -> bool:
        if len(pids()) < 2 or pids()[who] == before:
            return False
        found = [status(pid) for pid in pids()]
        return all(
            (one["NoNewPrivs"], one["Seccomp"], one["CapPrm"], one["CapEff"])
            == ("1", "2", "0" * 16, "0" * 16)
            for one in found
        )

    # Of a process of their own: a shell that outlives the start.
    code = f"import subprocess; subprocess.run({[*python, START]!r}, check=True); print(); input()"
    with subprocess.Popen(
        [python[0], "-uc", code], env=environment, cwd="/", stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, **rights,
    ) as shell:  # fmt: skip
        try:
            # Not before there is something to lose.
            assert shell.stdout is not None and shell.stdout.readline() == b"\n"
            eventually(lambda: inside(0, 0))
            layers = status(pids()[0])["Seccomp_filters"]
            for turn in range(4):
                before = pids()[turn % 2]
                os.kill(before, signal.SIGKILL)
                eventually(partial(inside, turn % 2, before))
                assert {status(pid)["Seccomp_filters"] for pid in pids()} == {layers}
        finally:
            os.kill(pids()[0], signal.SIGTERM)
            last = pids()
            shell.communicate()
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in last))
