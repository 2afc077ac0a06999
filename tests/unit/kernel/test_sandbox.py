"""Entering the sandbox: what is given up, what stays, and for whom.

A child of the test enters; tests of what it can do then are beside this file.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from perfkeep.abi.seccomp import AuditArch, Capability, Prctl
from perfkeep.kernel import sandbox
from perfkeep.testing.requirements import requires, root
from support.nobody import NOBODY
from support.sandbox import Inside

HERE = {"x86_64": AuditArch.X86_64, "aarch64": AuditArch.AARCH64}.get(platform.machine())

# <linux/prctl.h>, <linux/capability.h>: what only a test needs.
PR_SET_KEEPCAPS, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW = 8, 2, 13

known_machine = pytest.mark.skipif(HERE is None, reason="no filter for this machine")


def prctl(*args: int) -> None:
    libc = ctypes.CDLL(None)
    assert libc.prctl(*(ctypes.c_long(arg) for arg in [*args, 0, 0, 0, 0][:5])) == 0


def status(pid: int | str = "self") -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: text.strip() for key, _, text in (line.partition(":") for line in lines)}


STATUS = "import json; print(json.dumps(dict(l.split(':\t') for l in open('/proc/self/status'))))"


def of_a_child() -> dict[str, str]:
    """The status of a program that is started."""
    command = [sys.executable, "-I", "-S", "-c", STATUS]
    done = subprocess.run(command, capture_output=True, check=True)
    return {key: text.strip() for key, text in json.loads(done.stdout).items()}


def bits(some: tuple[Capability, ...]) -> str:
    return f"{sum(1 << one for one in some):016x}"


def had() -> int:
    """What is permitted here: a container's root has less than all."""
    return int(status()["CapPrm"], 16)


def documented() -> set[str]:
    """What is effective; where perfkeep lies below a user's folder there may be one more."""
    sets = {bits(sandbox.EFFECTIVE)}
    parents = {up for path in sandbox._own_code() for up in Path(path).resolve().parents}
    if any(up.stat().st_uid for up in parents):
        sets.add(bits((*sandbox.EFFECTIVE, Capability.DAC_READ_SEARCH)))
    return sets


@known_machine
@pytest.mark.parametrize("times", [1, 2, 5])
def test_entering_again_adds_no_layer(times: int, inside: Inside) -> None:
    before = int(status()["Seccomp_filters"])
    found = inside(status, times=times)
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert int(found["Seccomp_filters"]) == before + 1


@known_machine
def test_a_program_that_is_started_inside_is_inside(inside: Inside) -> None:
    before = int(status()["Seccomp_filters"])

    def enter_in_a_program() -> list[Any]:
        code = "from perfkeep.kernel import sandbox; import os; print(sandbox.enter().filter)\n"
        done = subprocess.run(
            [sys.executable, "-c", code + STATUS], capture_output=True, check=True
        )
        entered, text = done.stdout.decode().split("\n", 1)
        return [entered, json.loads(text)["Seccomp_filters"].strip()]

    assert inside(enter_in_a_program) == ["True", str(before + 1)]
    assert inside(of_a_child)["Seccomp"] == "2"


@requires(root)
def test_root_keeps_what_is_documented(inside: Inside) -> None:
    if sum(1 << one for one in sandbox.PERMITTED) & ~had():
        pytest.skip("this root lacks some of it from the beginning")
    found = inside(status)
    assert found["CapEff"] in documented()
    assert found["CapPrm"] == found["CapBnd"] == bits(sandbox.PERMITTED)
    assert found["CapInh"] == found["CapAmb"] == bits(())
    child = inside(of_a_child)
    assert child["CapEff"] == child["CapPrm"] == child["CapBnd"] == bits(sandbox.PERMITTED)


def become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


@requires(root)
def test_who_is_not_root_has_nothing_to_give_up(inside: Inside) -> None:
    found = inside(status, before=become_nobody)
    assert found["NoNewPrivs"] == "1"
    assert found["CapPrm"] == found["CapEff"] == bits(())


@requires(root)
def test_a_user_s_ambient_capabilities_stay_as_far_as_they_are_needed(inside: Inside) -> None:
    """Only the ambient set brings them to a keeper: systemd's AmbientCapabilities=."""
    needed = 1 << Capability.IPC_LOCK | 1 << Capability.PERFMON
    some = needed | 1 << CAP_NET_RAW
    if some & ~had():
        pytest.skip("this root lacks some of it from the beginning")

    def get_them() -> None:
        prctl(PR_SET_KEEPCAPS, 1)
        become_nobody()
        sandbox._set_capabilities(some, some, some)
        for one in (Capability.IPC_LOCK, Capability.PERFMON, CAP_NET_RAW):
            prctl(Prctl.CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, one)
        assert status()["CapAmb"] == f"{some:016x}"

    found = inside(status, before=get_them)
    for which in ("CapPrm", "CapInh", "CapAmb"):
        assert found[which] == f"{needed:016x}"
    assert found["CapEff"] == bits((Capability.IPC_LOCK,))


@requires(root)
def test_a_folder_that_only_its_owner_may_enter_can_be_entered_if_it_must(
    tmp_path: Path, inside: Inside
) -> None:
    if not had() & 1 << Capability.DAC_READ_SEARCH:
        pytest.skip("this root may not enter it anyway")
    closed = tmp_path / "closed"
    (closed / "inner").mkdir(parents=True)
    for path in (closed / "inner", closed):
        os.chown(path, NOBODY, NOBODY)
        path.chmod(0o700)
    inner = str(closed / "inner")
    assert inside(lambda: os.listdir(inner)) == "EACCES"
    assert inside(lambda: os.listdir(inner), paths=("/", inner, "/nowhere")) == []
