"""What a ring may be, told before the kernel says it with a bare errno."""

from __future__ import annotations

import errno
import mmap

from perfkeep.errors import KernelRefused, UsageError
from perfkeep.kernel.ring_limit import LARGEST_BYTES, largest_ring, ring_limit
from perfkeep.units import format_size
from perfkeep.wire.sideband import RING_BYTES

DEFAULT_RING_BYTES = 8 << 20


def default_ring(cpu_count: int) -> int:
    """8 MiB per CPU, or the largest power of two that this user's limit holds."""
    limit = ring_limit()
    if limit is None:
        return DEFAULT_RING_BYTES
    sideband = cpu_count * (RING_BYTES + mmap.PAGESIZE)
    largest = largest_ring(cpu_count, limit.lasting - sideband)
    return min(DEFAULT_RING_BYTES, largest or mmap.PAGESIZE)


def check_ring(size: int, cpu_count: int) -> int:
    """The size, if a ring can have it.

    Raises:
        UsageError: no power of two pages, or more than any ring can have.
        KernelRefused: EPERM over this user's locked-memory limit, ENOMEM more than there is;
            with the limit and by how much.
    """
    if size > LARGEST_BYTES:
        raise UsageError(
            f"the kernel's limit is {format_size(LARGEST_BYTES)} per ring; {format_size(size)} is "
            f"{format_size(size - LARGEST_BYTES)} over it",
            errno.ENOMEM,
            hint=_hint(cpu_count),
        )
    pages, rest = divmod(size, mmap.PAGESIZE)
    if rest or pages < 1 or pages & (pages - 1):
        below = mmap.PAGESIZE << max(0, pages.bit_length() - 1)
        largest = _largest(cpu_count)
        nearest = [format_size(near) for near in (below, below * 2) if near <= largest]
        raise UsageError(
            f"a ring must be a power of two pages of {mmap.PAGESIZE} bytes, and {size} bytes is not",
            hint=f"start it with --ring {' or '.join(nearest)}" if nearest else _hint(cpu_count),
        )
    total = (size + mmap.PAGESIZE) * cpu_count
    what = f"rings of {format_size(size)} on {cpu_count} CPUs need {format_size(total)}"
    limit, available = ring_limit(), _available_memory()
    if limit is not None and total > limit.total:
        raise KernelRefused(
            errno.EPERM,
            f"{what}, {format_size(total - limit.total)} more than this user may lock "
            f"({format_size(limit.total)} by kernel.perf_event_mlock_kb and RLIMIT_MEMLOCK)",
            hint=_hint(cpu_count),
        )
    if total > available:
        raise KernelRefused(
            errno.ENOMEM,
            f"{what}, {format_size(total - available)} more than the {format_size(available)} of "
            "memory that are free",
            hint=_hint(cpu_count),
        )
    return size


def _largest(cpu_count: int) -> int:
    """The largest ring that passes `check_ring`."""
    limit, available = ring_limit(), _available_memory()
    return largest_ring(cpu_count, available if limit is None else min(limit.lasting, available))


def _hint(cpu_count: int) -> str:
    largest = _largest(cpu_count)
    return f"start it with --ring {format_size(largest)} or less" if largest else ""


def _available_memory() -> int:
    with open("/proc/meminfo") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["MemAvailable"].split()[0]) << 10
