"""The PID namespace that this process is in."""

from __future__ import annotations

import os


def pid_namespace() -> int:
    """The inode of the PID namespace that this process is in: what its pids are numbers of."""
    return os.stat("/proc/self/ns/pid").st_ino


def proc_shows_own_pids() -> bool:
    """True if /proc was mounted for the PID namespace that this process is in."""
    return os.readlink("/proc/self") == str(os.getpid())
