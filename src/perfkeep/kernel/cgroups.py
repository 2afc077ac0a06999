"""Directories of cgroups that perf events can follow."""

from __future__ import annotations

import os


def roots() -> list[str]:
    """The mount points of the perf_event controller: cgroup2, or a v1 hierarchy that has it."""
    with open("/proc/self/mounts") as file:
        mounts = [line.split() for line in file]
    v1 = [m[1] for m in mounts if m[2] == "cgroup" and "perf_event" in m[3].split(",")]
    return v1 or [m[1] for m in mounts if m[2] == "cgroup2"]


def find(path: str) -> str | None:
    """The directory of a cgroup, by its path or by its name below a root; None: there is none.

    A folder of another file system is no cgroup, whatever files it has.
    """
    devices = {os.stat(root).st_dev: root for root in roots()}
    for candidate in (path, *(f"{root}/{path.lstrip('/')}" for root in devices.values())):
        try:
            if os.stat(candidate).st_dev in devices and os.path.isdir(candidate):
                return candidate
        except OSError:
            continue
    return None


def is_gone(path: str) -> bool:
    """True if a cgroup that was there has been removed. A relative path is the client's to resolve."""
    return path.startswith("/") and find(path) is None
