"""What the kernel's errno means for a person: the setting or limit behind it, and the cure."""

from __future__ import annotations

import errno
import os
import resource

from perfkeep.errors import KernelRefused
from perfkeep.kernel import sysctl


def _sysctl(name: str) -> str:
    try:
        return sysctl.read(f"kernel.{name}")
    except OSError:
        return "?"


def of_ring(error: OSError, size: int) -> KernelRefused:
    """mmap(2) of a ring of `size` bytes failed."""
    number = error.errno or errno.EIO
    each = f"a ring of {size >> 10} KiB per CPU"
    if number == errno.EPERM:
        per_cpu = _sysctl("perf_event_mlock_kb")
        soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        return KernelRefused(
            number,
            f"{each} is over the locked-memory limit of this user: kernel.perf_event_mlock_kb = "
            f"{per_cpu} KiB per CPU plus RLIMIT_MEMLOCK = {soft >> 10} KiB in all; ask for a "
            f"smaller --ring, or raise the first with: sudo sysctl kernel.perf_event_mlock_kb="
            f"{(size >> 10) + 4}",
        )
    if number == errno.ENOMEM:
        return KernelRefused(number, f"{each} does not fit into memory; ask for a smaller --ring")
    if number == errno.EINVAL:
        return KernelRefused(
            number, f"{each} is no size that a ring can have: it must be a power of two pages"
        )
    return KernelRefused(number, f"{each} cannot be mapped: {os.strerror(number)}")


def of_open(error: OSError, event: str, target: str) -> KernelRefused:
    """perf_event_open(2) failed for the event called `event`, on `target` ("CPU 0", "pid 17")."""
    number = error.errno or errno.EIO
    what = f"{event} on {target} cannot be opened"
    if number in (errno.EACCES, errno.EPERM):
        return KernelRefused(
            number,
            f"{what}: not permitted with kernel.perf_event_paranoid = "
            f"{_sysctl('perf_event_paranoid')}; allow it with: "
            "sudo sysctl kernel.perf_event_paranoid=-1 (or run with CAP_PERFMON)",
        )
    if number in (errno.EMFILE, errno.ENFILE):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        return KernelRefused(
            number,
            f"{what}: the open files limit is reached (RLIMIT_NOFILE {soft}, hard limit {hard}); "
            f"raise it with: ulimit -n {hard if soft < hard else hard * 4}",
        )
    causes = {
        errno.ENOENT: "this machine's CPUs have no such event",
        errno.ENODEV: "no PMU of this machine counts it, or the CPU is offline",
        errno.EOPNOTSUPP: "its PMU cannot sample, or lacks a feature that was asked for",
        errno.ESRCH: "there is no such task",
        errno.ENOSPC: "all hardware breakpoints or counters of this kind are in use",
        errno.EBUSY: "another event holds the PMU for itself",
        errno.EINVAL: "the kernel does not take this combination of settings",
        errno.E2BIG: "this kernel is older than the attributes asked for",
    }
    return KernelRefused(number, f"{what}: {causes.get(number, os.strerror(number))}")
