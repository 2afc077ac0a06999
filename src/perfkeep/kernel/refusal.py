"""Errno of a refused event or ring → the setting or limit behind it, and the smallest cure.

The cure is for the process that was refused: a command that its user can run, or one sentence.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Mapping

from perfkeep.abi.perf_event import Attr, Type
from perfkeep.errors import KernelRefused
from perfkeep.kernel import privileges, sysctl
from perfkeep.kernel.ring_limit import RingLimit, largest_ring, ring_limit
from perfkeep.units import format_size

#: Types of events that only a CPU's PMU counts, which virtual machines often lack.
_OF_CPUS = (Type.HARDWARE, Type.HW_CACHE, Type.RAW)


def of_ring(
    error: OSError, size: int, cpu_count: int, others: Mapping[str, int], pinned: int
) -> KernelRefused:
    """mmap(2) of one of `cpu_count` rings of `size` bytes failed.

    Args:
        others: bytes of the rings that the user has already, by recording.
        pinned: bytes that the kernel charges the process that maps them for rings already.
    """
    number = error.errno or errno.EIO
    each = f"a ring of {format_size(size)} per CPU"
    if number == errno.EPERM:
        return _locked(number, each, size, cpu_count, others, pinned)
    if number == errno.ENOMEM:
        return KernelRefused(
            number, f"{each} does not fit into memory", hint="start it with a smaller --ring"
        )
    if number == errno.EINVAL:
        return KernelRefused(
            number, f"{each} is no size that a ring can have: it must be a power of two pages"
        )
    return KernelRefused(number, f"{each} cannot be mapped: {os.strerror(number)}")


def _locked(
    number: int, each: str, size: int, cpu_count: int, others: Mapping[str, int], pinned: int
) -> KernelRefused:
    limit = ring_limit() or RingLimit(0, 0)
    used = sum(others.values())
    message = (
        f"{each} is over the locked-memory limit of this user, {format_size(limit.total)} in all"
    )
    if used:
        largest_first = sorted(others.items(), key=lambda item: -item[1])
        rings = ", ".join(f"{name} {format_size(bytes)}" for name, bytes in largest_first)
        message += f"; {format_size(used)} are in use by the rings of: {rings}"
    room = largest_ring(cpu_count, limit.process - pinned)
    hint = ""
    if room and room < size:
        hint = f"start it with --ring {format_size(room)}"
    elif used:
        hint = f"perfkeep claim {max(others, key=others.__getitem__)}"
    return KernelRefused(number, message, hint=hint)


def of_open(
    error: OSError, event: str, target: str, attr: Attr | None = None, task: int = -1
) -> KernelRefused:
    """perf_event_open(2) failed.

    Args:
        event, target: in words: "cpu-clock", "CPU 0".
        attr: of the event; None: one of no special kind.
        task: whose event it is; -1: every task's, or a cgroup's.
    """
    number = error.errno or errno.EIO
    what = f"{event} on {target} cannot be opened"
    if number in (errno.EACCES, errno.EPERM) or (number == errno.ENOSYS and privileges.filtered()):
        tracepoint = attr is not None and attr.type == Type.TRACEPOINT
        return _not_permitted(number, what, tracepoint, task)
    if number in (errno.EMFILE, errno.ENFILE):
        return _no_file(number, what)
    causes = {
        errno.EBADF: "its cgroup is none that perf events can follow",
        errno.ENOENT: "this machine's CPUs have no such event",
        errno.ENODEV: "no PMU of this machine counts it, or the CPU is offline",
        errno.EOPNOTSUPP: "its PMU cannot sample, or lacks a feature that was asked for",
        errno.ESRCH: "there is no such task",
        errno.ENOSPC: "all hardware breakpoints or counters of this kind are in use",
        errno.EBUSY: "another event holds the PMU for itself",
        errno.EINVAL: "the kernel does not take this combination of settings",
        errno.E2BIG: "this kernel is older than the attributes asked for",
    }
    message = f"{what}: {causes.get(number, os.strerror(number))}"
    hint = ""
    if attr is not None and attr.type in _OF_CPUS and number in (errno.ENOENT, errno.ENODEV):
        hint = "cpu-clock samples by time on every machine: -e cpu-clock"
    return KernelRefused(number, message, hint=hint)


def _not_permitted(number: int, what: str, tracepoint: bool, task: int) -> KernelRefused:
    # The kernel's own answer is EACCES, and EPERM for tracepoints; EPERM is how filters refuse.
    if number in (errno.EPERM, errno.ENOSYS) and privileges.filtered() and not tracepoint:
        return KernelRefused(
            number, f"{what}: a seccomp filter refuses perf_event_open", hint=privileges.CONTAINER
        )
    paranoid = _paranoid()
    if "CAP_PERFMON" in privileges.held() or (paranoid < 0 and task < 0):
        why = "a security module refuses it"
        if not privileges.obtainable("CAP_PERFMON"):
            why = "capabilities do not count here, in a user namespace"
        return KernelRefused(number, f"{what}: {why}")
    if task >= 0 and (owner := _owner(task)) not in (None, os.geteuid()):
        why = f"task {task} belongs to uid {owner}, and this user lacks CAP_PERFMON"
        return KernelRefused(number, f"{what}: {why}", hint=privileges.again_with("CAP_PERFMON"))
    level = -1 if tracepoint else 0 if task < 0 else 1
    return KernelRefused(
        number,
        f"{what}: not permitted with kernel.perf_event_paranoid = {paranoid}",
        hint=permission_hint(level),
    )


def permission_hint(level: int) -> str:
    """The smallest cure for a lack of CAP_PERFMON.

    Args:
        level: of kernel.perf_event_paranoid that would do for every user as well.
    """
    if not privileges.obtainable("CAP_PERFMON"):
        return f"the container needs CAP_PERFMON: {privileges.CONTAINER}"
    return privileges.again_with("CAP_PERFMON") or privileges.as_root(
        "sysctl", f"kernel.perf_event_paranoid={level}"
    )


def _paranoid() -> int:
    try:
        return int(sysctl.read("kernel.perf_event_paranoid"))
    except OSError:
        return 2  # as the kernel has it unless told otherwise


def _owner(task: int) -> int | None:
    """The uid that the kernel compares; root where the task's memory is protected."""
    try:
        return os.stat(f"/proc/{task}").st_uid
    except OSError:
        return None


def _no_file(number: int, what: str) -> KernelRefused:
    """Word EMFILE and ENFILE. Nothing can be opened at this moment, so nothing is looked up in /proc."""
    fewer = "record fewer events, or on fewer CPUs with -C"
    if number == errno.ENFILE:
        return KernelRefused(
            number,
            f"{what}: the machine's limit of open files is reached (fs.file-max)",
            hint=fewer,
        )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return KernelRefused(
        number,
        f"{what}: the open files limit is reached (RLIMIT_NOFILE {soft}, hard limit {hard})",
        hint=f"ulimit -n {hard}" if soft < hard else fewer,
    )
