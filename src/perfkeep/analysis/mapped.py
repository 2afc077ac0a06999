"""The bytes of a file: mapped where that is safe, and copied otherwise."""

from __future__ import annotations

import io
import mmap
import os
import stat

import numpy as np


def whole(path: str) -> memoryview:
    """A whole file, or what a pipe gives."""
    with open(path, "rb", buffering=0) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            return memoryview(file.readall())
        return _mapped(file, found) or _copied(file, found)


def _mapped(file: io.FileIO, found: os.stat_result) -> memoryview | None:
    """The file in memory without a copy, which is most of the time that reading takes; None where
    somebody else may write to it: who makes a mapped file shorter kills its reader.
    """
    ours = found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022
    if not ours or not found.st_size:
        return None
    try:
        return memoryview(mmap.mmap(file.fileno(), found.st_size, prot=mmap.PROT_READ))
    except OSError:  # a file system that cannot
        return None


def _copied(file: io.FileIO, found: os.stat_result) -> memoryview:
    # numpy's memory: of large arrays in large pages, which the kernel hands out faster.
    whole = np.empty(found.st_size, "u1").data
    at = 0
    while more := file.readinto(whole[at:]):
        at += more
    return whole[:at]
