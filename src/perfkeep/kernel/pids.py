"""The PID namespaces of this process and of others."""

from __future__ import annotations

import os

#: PROC_PID_INIT_INO of include/linux/proc_ns.h: the inode of the one that shows every task.
EVERY_TASK = 0xEFFFFFFC


def pid_namespace(pid: int | None = None) -> int:
    """The inode of the PID namespace that a process is in, this one or another: what the pids that it
    sees are numbers of.

    Raises:
        OSError: there is no such process, or its namespaces may not be seen.
    """
    return os.stat(f"/proc/{'self' if pid is None else pid}/ns/pid").st_ino


def proc_shows_own_pids() -> bool:
    """True if /proc was mounted for the PID namespace that this process is in."""
    return os.readlink("/proc/self") == str(os.getpid())
