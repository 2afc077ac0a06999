"""`perfkeep doctor`: what this machine lets you record, and how to let you do more."""

from __future__ import annotations

import argparse
import os
import resource
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from perfkeep.cli.common import print_json
from perfkeep.errors import PerfkeepError

Verdict = Literal["ok", "warn", "fail"]


class Finding(NamedTuple):
    """One line: how it stands, what was looked at, what was found, and the cure if there is
    one to be had.
    """

    verdict: Verdict
    what: str
    found: str
    cure: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


# <linux/capability.h>
_CAPABILITIES = {"CAP_IPC_LOCK": 14, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38}


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def _status(field: str) -> str:
    for line in _read("/proc/self/status").splitlines():
        if line.startswith(field + ":"):
            return line.partition(":")[2].strip()
    return ""


def _opening(what: str, pid: int, cpu: int, blocks: bool) -> Finding:
    from perfkeep.abi.perf_event import Attr, Flag, Software, Type
    from perfkeep.kernel import refusal
    from perfkeep.kernel.syscalls import perf_event_open

    flags = Flag.DISABLED | (Flag.EXCLUDE_KERNEL if pid >= 0 else Flag(0))
    attr = Attr(type=Type.SOFTWARE, config=Software.CPU_CLOCK, flags=flags)
    try:
        perf_event_open(attr, pid, cpu).close()
    except OSError as error:
        text = str(refusal.of_open(error, "cpu-clock", what))
        found, _, cure = text.partition("; ")
        return Finding("fail" if blocks else "warn", what, found, cure)
    return Finding("ok", what, "can be recorded")


def _paranoid() -> Finding:
    value = _read("/proc/sys/kernel/perf_event_paranoid")
    if int(value) <= -1 or os.geteuid() == 0:
        return Finding("ok", "kernel.perf_event_paranoid", value)
    return Finding(
        "warn",
        "kernel.perf_event_paranoid",
        f"{value}: only your own processes",
        "sudo sysctl kernel.perf_event_paranoid=-1",
    )


def _addresses() -> Finding:
    value = _read("/proc/sys/kernel/kptr_restrict")
    hidden = value == "2" or (value == "1" and os.geteuid() != 0)
    if not hidden:
        return Finding("ok", "kernel.kptr_restrict", f"{value}: kernel symbols can be shown")
    return Finding(
        "warn",
        "kernel.kptr_restrict",
        f"{value}: kernel symbols stay numbers",
        "sudo sysctl kernel.kptr_restrict=0",
    )


def _capabilities() -> Finding:
    effective = int(_status("CapEff"), 16)
    have = [name for name, bit in _CAPABILITIES.items() if effective >> bit & 1]
    return Finding("ok", "capabilities", ", ".join(have) or "none of CAP_PERFMON, CAP_SYS_ADMIN")


def _rings() -> Finding:
    from perfkeep.client.limits import DEFAULT_RING_BYTES, default_ring
    from perfkeep.kernel import cpus
    from perfkeep.units import format_size

    size = default_ring(len(cpus.online()))
    if size == DEFAULT_RING_BYTES:
        return Finding("ok", "rings", f"{format_size(size)} per CPU and more")
    return Finding(
        "warn",
        "rings",
        f"at most {format_size(size)} per CPU, by kernel.perf_event_mlock_kb",
        f"sudo sysctl kernel.perf_event_mlock_kb={(DEFAULT_RING_BYTES >> 10) + 4}",
    )


def _files() -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard >= 4096:
        return Finding("ok", "open files", f"{hard:,}: one for each event and CPU")
    return Finding("warn", "open files", f"only {hard:,}: one for each event and CPU",
                   "raise the hard limit of RLIMIT_NOFILE, in /etc/security/limits.conf")  # fmt: skip


def _tracefs() -> Finding:
    from perfkeep.kernel import tracefs

    try:
        root = tracefs.root()
        os.listdir(root / "events")
    except OSError as error:
        text = str(error) if isinstance(error, PerfkeepError) else os.strerror(error.errno or 0)
        return Finding("warn", "tracepoints", text,
                       "sudo mount -t tracefs nodev /sys/kernel/tracing")  # fmt: skip
    return Finding("ok", "tracepoints", f"in {root}")


def _walk() -> Finding:
    from perfkeep import records

    if records.NATIVE:
        return Finding("ok", "record walk", "native")
    return Finding("warn", "record walk", "pure Python: snapshots take longer",
                   "install a C compiler and Python's headers, then install perfkeep again")  # fmt: skip


def _perf() -> Finding:
    import shutil

    found = shutil.which("perf")
    return Finding("ok", "stock perf", found or "not installed; nothing here needs it")


def _hardware() -> Finding:
    there = os.path.exists("/sys/bus/event_source/devices/cpu")
    return Finding("ok", "hardware PMU", "there" if there else "none; software events work")


def _seccomp() -> Finding:
    mode = _status("Seccomp")
    if mode in ("", "0"):
        return Finding("ok", "seccomp", "no filter")
    return Finding("ok", "seccomp", "a filter is active; if events are refused, run the container "
                   "with --cap-add PERFMON and a profile that allows perf_event_open")  # fmt: skip


def _instance() -> Finding:
    import socket

    from perfkeep.wire import instance

    where = instance.current()
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(where.socket)
        except OSError:
            return Finding("ok", "instance", f"none at {where.socket}; the first command starts it")
    return Finding("ok", "instance", f"answers at {where.socket}")


CHECKS: tuple[Callable[[], Finding], ...] = (
    lambda: Finding("ok", "kernel", f"{os.uname().release} on {os.uname().machine}"),
    lambda: _opening("the whole machine", -1, 0, blocks=False),
    lambda: _opening("your own processes", 0, -1, blocks=True),
    _paranoid,
    _addresses,
    _capabilities,
    _rings,
    _files,
    _tracefs,
    _hardware,
    _seccomp,
    _walk,
    _perf,
    _instance,
)


def examine() -> Iterator[Finding]:
    """All findings, in order. One that cannot be had is a warning and stops no other."""
    for check in CHECKS:
        try:
            yield check()
        except (OSError, ValueError) as error:
            yield Finding("warn", check.__name__.strip("_"), f"cannot be found out: {error}")


def run(options: argparse.Namespace) -> int:
    findings = list(examine())
    if options.json:
        print_json([one._asdict() for one in findings])
    else:
        width = max(len(one.what) for one in findings)
        for one in findings:
            print(f"{one.verdict:4}  {one.what:{width}}  {one.found}")
            if one.cure:
                print(f"{'':4}  {'':{width}}  → {one.cure}")
    return 1 if any(one.verdict == "fail" for one in findings) else 0
