"""What a test needs of the machine, said in its first line.

    pytestmark = requires(perf_events, tracefs)

A test that lacks something skips and says why. Where the environment variable PERFKEEP_REQUIRE
names the feature ("perf_events,root", or "all"), it fails instead: the feature should be there.
Needs are looked at once for each process. pytest is imported only by `requires`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from perfkeep.abi.perf_event import Attr, Hardware, Software, Type
from perfkeep.kernel import refusal, sysctl
from perfkeep.kernel.syscalls import mount, perf_event_open, umount

if TYPE_CHECKING:
    import pytest

REQUIRE = "PERFKEEP_REQUIRE"


class Need:
    """One thing that a machine has or lacks.

    Args:
        name: as PERFKEEP_REQUIRE spells it.
        probe: looks, and gives one sentence on why it is missing, or None when it is there.
    """

    __slots__ = ("_known", "_probe", "_reason", "name")

    def __init__(self, name: str, probe: Callable[[], str | None]) -> None:
        self.name = name
        self._probe = probe
        self._known = False
        self._reason: str | None = None

    def probe(self) -> str | None:
        """Why it is missing; None when it is there."""
        if not self._known:
            self._reason = self._probe()
            self._known = True
        return self._reason

    def __repr__(self) -> str:
        return f"Need({self.name!r})"


def missing(needs: Iterable[Need]) -> str | None:
    """Everything that is missing in one line, or None."""
    reasons = [f"{need.name}: {reason}" for need in needs if (reason := need.probe())]
    return "; ".join(reasons) or None


def demanded(needs: Iterable[Need], environment: str | None = None) -> tuple[Need, ...]:
    """The needs that must be there, whatever the machine.

    Args:
        environment: the text of PERFKEEP_REQUIRE, of this process unless given.
    """
    text = os.environ.get(REQUIRE, "") if environment is None else environment
    names = {name.strip() for name in text.split(",")}
    return tuple(need for need in needs if need.name in names or "all" in names)


def requires(*needs: Need) -> pytest.MarkDecorator:
    """A mark for a test, or for a module's `pytestmark`, that skips where a need is missing.

    Raises:
        pytest.fail.Exception: PERFKEEP_REQUIRE names a need that is missing.
    """
    import pytest

    fatal = missing(demanded(needs))
    if fatal:
        pytest.fail(f"{REQUIRE} demands what is missing: {fatal}", pytrace=False)
    reason = missing(needs)
    return pytest.mark.skipif(reason is not None, reason=reason or "nothing is missing")


# --- what can be needed -----------------------------------------------------------------------


def _opens(attr: Attr, event: str) -> str | None:
    try:
        perf_event_open(attr, -1, 0).close()
    except OSError as error:
        return str(refusal.of_open(error, event, "CPU 0"))
    return None


def _perf_events() -> str | None:
    return _opens(Attr(type=Type.SOFTWARE, config=Software.CPU_CLOCK), "cpu-clock")


def _hardware_pmu() -> str | None:
    return _opens(Attr(type=Type.HARDWARE, config=Hardware.CPU_CYCLES), "cycles")


def _tracefs() -> str | None:
    for folder in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
        if os.access(f"{folder}/events", os.R_OK | os.X_OK):
            return None
    with tempfile.TemporaryDirectory() as folder:
        try:
            mount("tracefs", folder, "tracefs")
        except OSError as error:
            return f"it is not mounted and cannot be: {error.strerror}"
        umount(folder)
    return None


def _runs(*command: str, stdin: str = "") -> str | None:
    """Whether the command ends well; the last line of what it complains otherwise."""
    if shutil.which(command[0]) is None:
        return f"there is no {command[0]} in PATH"
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"it ends with {done.returncode}"
        return f"{command[0]}: {said.splitlines()[-1]}"
    return None


def _perf_tool() -> str | None:
    return _runs("perf", "--version")


def _bubblewrap() -> str | None:
    return _runs("bwrap", "--version")


def _groff() -> str | None:
    return _runs("groff", "-man", "-Tutf8", "-z", stdin=".TH A 1\n")


def _chromium() -> str | None:
    from perfkeep.testing.browser import NAMES, program

    return None if program() else f"there is none of {', '.join(NAMES)} in PATH"


def _go() -> str | None:
    return _runs("go", "tool", "-n", "pprof")


def profiled_python() -> str | None:
    """A CPython whose functions a profiler can see under -X perf: from 3.12 on, and built with frame
    pointers.
    """
    made = os.path.join(".tools", "cpython", "python")
    asks = (
        "import sys, sysconfig as s; print(sys.version_info >= (3, 12), s.get_config_var('CFLAGS'))"
    )
    for name in (made, "python3", "python3.15", "python3.14", "python3.13", "python3.12"):
        path = shutil.which(name)
        if path is None:
            continue
        done = subprocess.run([path, "-c", asks], capture_output=True, text=True, check=False)
        if done.stdout.startswith("True") and "-fno-omit-frame-pointer" in done.stdout:
            return os.path.abspath(path)
    return None


def _profiled_python() -> str | None:
    if profiled_python():
        return None
    return "no CPython from 3.12 on that was built with -fno-omit-frame-pointer: make cpython"


def _systemd_analyze() -> str | None:
    # 250 is the first that looks at the security of a unit file which is not installed.
    return _runs("systemd-analyze", "security", "--offline=true", "--help")


def _compiler() -> str | None:
    includes = "#include <stdio.h>\n#include <linux/perf_event.h>\n"
    return _runs("cc", "-fsyntax-only", "-x", "c", "-", stdin=includes)


def _root() -> str | None:
    return None if os.geteuid() == 0 else f"the user is {os.geteuid()}, not root"


def _cpu_hotplug() -> str | None:
    switch = "/sys/devices/system/cpu/cpu1/online"
    return None if os.access(switch, os.W_OK) else f"{switch} cannot be written"


def _pmu(name: str) -> Callable[[], str | None]:
    def probe() -> str | None:
        folder = f"/sys/bus/event_source/devices/{name}"
        return None if os.path.isdir(folder) else f"this kernel has no {folder}"

    return probe


def _i386() -> str | None:
    there = os.path.exists("/proc/sys/abi/vsyscall32")
    return None if there else "this kernel runs no 32-bit programs of x86"


def _seccomp_notification() -> str | None:
    known = "user_notif" in sysctl.read("kernel.seccomp.actions_avail").split()
    return None if known else "this kernel has no seccomp user notification"


def _overlay() -> str | None:
    with open("/proc/filesystems") as file:
        known = "overlay" in file.read().split()
    return None if known else "this kernel has no overlay filesystem (or has not loaded it)"


#: cpu-clock can be opened for every task on a CPU
perf_events = Need("perf_events", _perf_events)
#: cycles can be: most virtual machines lack it
hardware_pmu = Need("hardware_pmu", _hardware_pmu)
#: mounted, or can be
tracefs = Need("tracefs", _tracefs)
#: stock perf is in PATH and runs
perf_tool = Need("perf_tool", _perf_tool)
#: cc, with the headers of libc and of the kernel
compiler = Need("compiler", _compiler)
#: bwrap is in PATH
bubblewrap = Need("bubblewrap", _bubblewrap)
#: groff is in PATH, with the man macros
groff = Need("groff", _groff)
#: a Chromium that runs without a screen
chromium = Need("chromium", _chromium)
#: go is in PATH, with its pprof
go = Need("go", _go)
#: a CPython whose functions profilers can see
cpython = Need("cpython", _profiled_python)
#: systemd-analyze is in PATH, and reads unit files; systemd itself need not run
systemd_analyze = Need("systemd_analyze", _systemd_analyze)
root = Need("root", _root)
#: CPU 1 can be taken offline
cpu_hotplug = Need("cpu_hotplug", _cpu_hotplug)
kprobes = Need("kprobes", _pmu("kprobe"))
uprobes = Need("uprobes", _pmu("uprobe"))
overlay = Need("overlay", _overlay)
i386 = Need("i386", _i386)
#: a filter may hand calls to a supervisor
seccomp_notification = Need("seccomp_notification", _seccomp_notification)
