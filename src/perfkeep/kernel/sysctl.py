"""Settings of the kernel's, by the names that sysctl(8) has for them."""

from __future__ import annotations

from functools import cache


def read(name: str) -> str:
    """What "kernel.perf_event_paranoid" is set to, as text.

    Raises:
        OSError: this kernel has no such setting, or does not show it.
    """
    # Not as text: for that Python 3.11 looks up a name in its cache of attributes, which keeps a
    # copy of the name each time until there are 4096, and a daemon asks for years.
    with open(f"/proc/sys/{name.replace('.', '/')}", "rb") as file:
        return file.read().decode().strip()


@cache
def boot_id() -> str:
    """Which boot of the machine this is."""
    return read("kernel.random.boot_id")


def most_frames() -> int:
    """That a call chain can have, with the marks between its parts."""
    limits = ("perf_event_max_stack", "perf_event_max_contexts_per_stack")
    return sum(int(read(f"kernel.{name}")) for name in limits)
