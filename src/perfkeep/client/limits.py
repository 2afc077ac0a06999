"""What a ring may be, told before the kernel says it with a bare errno."""

from __future__ import annotations

import errno
import mmap
import resource

from perfkeep.errors import KernelRefused, UsageError
from perfkeep.kernel import cpus, sysctl
from perfkeep.units import format_size

DEFAULT_RING_BYTES = 8 << 20

# The kernel keeps the addresses of a ring's pages in one allocation, and the largest that the
# page allocator gives is 2^10 pages (MAX_PAGE_ORDER), which leaves room for 2^18 addresses.
_MOST_PAGES = 1 << 18

# <linux/capability.h>
_CAP_IPC_LOCK = 14


def _locked_limit() -> int | None:
    """Bytes of rings that this user may have in all, or None: no limit (CAP_IPC_LOCK)."""
    if _may_lock() or int(sysctl.read("kernel.perf_event_paranoid")) < 0:
        return None
    per_cpu = int(sysctl.read("kernel.perf_event_mlock_kb")) << 10
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY:
        return None
    return per_cpu * len(cpus.online()) + soft


def _may_lock() -> bool:
    """CAP_IPC_LOCK: no limit on locked memory."""
    with open("/proc/self/status") as file:
        effective = next(line for line in file if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> _CAP_IPC_LOCK & 1)


def default_ring(cpu_count: int) -> int:
    """8 MiB per CPU, or the largest power of two that this user's limit holds."""
    limit = _locked_limit()
    size = DEFAULT_RING_BYTES
    while limit is not None and size > mmap.PAGESIZE and (size + mmap.PAGESIZE) * cpu_count > limit:
        size //= 2
    return size


def check_ring(size: int, cpu_count: int) -> int:
    """The size, if a ring can have it.

    Raises:
        UsageError: no power of two pages, or more than any ring can have.
        KernelRefused: EPERM over this user's locked-memory limit, ENOMEM more than there is;
            with the limit and by how much.
    """
    pages, rest = divmod(size, mmap.PAGESIZE)
    if rest or pages < 1 or pages & (pages - 1):
        below = mmap.PAGESIZE << max(0, pages.bit_length() - 1)
        raise UsageError(
            f"a ring must be a power of two pages of {mmap.PAGESIZE} bytes, and {size} bytes is "
            f"not; the nearest are {format_size(below)} and {format_size(below * 2)}"
        )
    most = _MOST_PAGES * mmap.PAGESIZE
    if size > most:
        raise UsageError(
            f"the kernel's limit is {format_size(most)} per ring; {format_size(size)} is "
            f"{format_size(size - most)} over it",
            errno.ENOMEM,
        )
    total = (size + mmap.PAGESIZE) * cpu_count
    what = f"rings of {format_size(size)} on {cpu_count} CPUs need {format_size(total)}"
    limit = _locked_limit()
    if limit is not None and total > limit:
        raise KernelRefused(
            errno.EPERM,
            f"{what}, {format_size(total - limit)} more than this user may lock "
            f"({format_size(limit)} by kernel.perf_event_mlock_kb and RLIMIT_MEMLOCK); ask for "
            f"--ring {format_size(default_ring(cpu_count))}",
        )
    available = _available_memory()
    if total > available:
        raise KernelRefused(
            errno.ENOMEM,
            f"{what}, {format_size(total - available)} more than the {format_size(available)} of "
            "memory that are free; ask for a smaller --ring",
        )
    return size


def _available_memory() -> int:
    with open("/proc/meminfo") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["MemAvailable"].split()[0]) << 10
