"""Limits that an administrator sets by sysctl(8)."""

from __future__ import annotations


def most_frames() -> int:
    """That a call chain can have, with the marks between its parts."""
    frames = 0
    for name in ("perf_event_max_stack", "perf_event_max_contexts_per_stack"):
        with open(f"/proc/sys/kernel/{name}") as file:
            frames += int(file.read())
    return frames
