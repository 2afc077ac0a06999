"""The amount of memory this process may lock for rings, and the rings that fit."""

from __future__ import annotations

import mmap
import resource
from typing import NamedTuple

from perfkeep.kernel import cpus, privileges, sysctl

# The kernel keeps the addresses of a ring's pages in one allocation, and the largest that the
# page allocator gives is 2^10 pages (MAX_PAGE_ORDER), which leaves room for 2^18 addresses.
LARGEST_BYTES = (1 << 18) * mmap.PAGESIZE


class RingLimit(NamedTuple):
    """Bytes that a user may lock for rings.

    The kernel charges kernel.perf_event_mlock_kb of each CPU to the user first, and the rest to the
    process. Linux 6.18 charges the user for each further mapping of a ring and never credits that
    (measured), so once a user has recorded, only the process's part can be relied on.
    """

    user: int
    process: int

    @property
    def total(self) -> int:
        return self.user + self.process

    @property
    def lasting(self) -> int:
        return max(self.user, self.process)


def ring_limit() -> RingLimit | None:
    """The limit of this process; None: no limit."""
    if "CAP_IPC_LOCK" in privileges.held() or int(sysctl.read("kernel.perf_event_paranoid")) < 0:
        return None
    per_cpu = int(sysctl.read("kernel.perf_event_mlock_kb")) << 10
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY else RingLimit(per_cpu * len(cpus.online()), soft)


def largest_ring(cpu_count: int, room: int) -> int:
    """The largest ring of which `cpu_count` fit into so many bytes; 0: none."""
    size = LARGEST_BYTES
    while size >= mmap.PAGESIZE and (size + mmap.PAGESIZE) * cpu_count > room:
        size //= 2
    return size if size >= mmap.PAGESIZE else 0
