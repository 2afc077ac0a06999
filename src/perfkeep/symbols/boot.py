"""Test if a recording is of this machine, since it was booted. One answer for all that is only true
then: addresses of /proc/kallsyms, pids in /proc, files that just-in-time compilers left.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import NamedTuple

from perfkeep.symbols.build_id import in_notes

#: The kernel's address without KASLR, of x86_64 and of aarch64 by its version.
_LINKED = frozenset((0xFFFFFFFF81000000, 0xFFFF800080000000, 0xFFFF800008000000))


class Boot(NamedTuple):
    """One boot of one machine.

    Attributes:
        id: /proc/sys/kernel/random/boot_id; "", here as in the others: not known.
        kernel: the kernel's build id, in hex.
        release, host: see uname(2).
        texts: addresses of _text and _stext; empty: not known.
    """

    id: str = ""
    kernel: str = ""
    release: str = ""
    host: str = ""
    texts: frozenset[int] = frozenset()


def here(texts: frozenset[int]) -> Boot:
    """This one.

    Args:
        texts: as /proc/kallsyms shows them to this process.
    """
    names = os.uname()
    notes = in_notes(_read("/sys/kernel/notes")) or b""
    id = _read("/proc/sys/kernel/random/boot_id").decode(errors="replace").strip()
    return Boot(id, notes.hex(), names.release, names.nodename, texts)


def began_ns() -> int:
    """Wall clock when this machine was booted, in ns since 1970."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def same_boot(recorded: Boot, here: Boot, recorded_ns: int | None = None) -> bool:
    """True if a recording was made in this boot of this machine.

    The boot id decides where both have one, as in files of perfkeep. Otherwise nothing may differ
    in what both have of the kernel; and beside the kernel its address, if it is random, or the name
    of the machine is the same: a container has a name of its own.

    Args:
        recorded_ns: wall clock at the recording; None: not known.
    """
    if recorded.id and here.id:
        return recorded.id == here.id
    if recorded_ns is not None and recorded_ns < began_ns():
        return False
    kernels = ((recorded.kernel, here.kernel), (recorded.release, here.release))
    known = [one == other for one, other in kernels if one and other]
    if not known or not all(known):
        return False
    if recorded.texts and here.texts:
        if recorded.texts.isdisjoint(here.texts):
            return False
        if not recorded.texts & _LINKED:
            return True
    return bool(recorded.host) and recorded.host == here.host


def _read(path: str) -> bytes:
    with suppress(OSError), open(path, "rb") as file:
        return file.read()
    return b""
