"""Call chains: the address space and address of each frame. Pure; needs numpy.

What is the kernel's and what is the process's follows from the marks in a chain, and before the first
of them from the CPU mode of the sample. Addresses do not say it: a 32-bit kernel lies at 0xc0000000.

    chain   PERF_CONTEXT_KERNEL  k1  k2  PERF_CONTEXT_USER  u1  u2
    frames                       k1  k2                     u1  u2
    space                     KERNEL KERNEL            the process's
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfkeep.abi.perf_event import (
    PERF_CONTEXT_KERNEL,
    PERF_CONTEXT_MAX,
    PERF_CONTEXT_USER,
    PERF_CONTEXT_USER_DEFERRED,
    Attr,
    Branch,
    Sample,
)
from perfkeep.abi.records import (
    MISC_CPUMODE,
    MISC_CPUMODE_KERNEL,
    MISC_CPUMODE_UNKNOWN,
    MISC_CPUMODE_USER,
)
from perfkeep.analysis.mappings import KERNEL, UNKNOWN, Mappings
from perfkeep.records.cells import Column, behind
from perfkeep.records.columns import Rows

Ints = NDArray[Any]

#: On 64-bit machines the kernel's addresses begin here.
UPPER_HALF = 1 << 63
# Beside MISC_CPUMODE_*: of a guest or hypervisor, and no frame.
_FOREIGN, _NO_FRAME = 6, 7
_MARKS = {
    PERF_CONTEXT_KERNEL: MISC_CPUMODE_KERNEL,
    PERF_CONTEXT_USER: MISC_CPUMODE_USER,
    # A cookie follows, by which the kernel gives the frames later.
    PERF_CONTEXT_USER_DEFERRED: _NO_FRAME,
}


def unread_stacks(name: str, attr: Attr) -> str:
    """A sentence on recorded stacks that no frames are made of; "": there are none."""
    if attr.sample_type & Sample.STACK_USER:
        return (
            f"{name} has copies of the stack (perf record --call-graph dwarf), which are not unwound: "
            "of programs only the innermost function is shown"
        )
    if not attr.sample_type & Sample.BRANCH_STACK:
        return ""
    if attr.branch_sample_type & Branch.CALL_STACK:
        return (
            f"{name} has its call chains as branch stacks (perf record --call-graph lbr), which are "
            "not read: of programs only the innermost function is shown"
        )
    return f"branch stacks of {name} are not shown; perfkeep sql has them as columns"


class Frames(NamedTuple):
    """Frames of several samples, one after the other, the innermost of each first.

    Attributes:
        spaces: as Mappings.at numbers them.
        lengths: the number of frames of each sample.
    """

    spaces: Ints
    addresses: Ints
    lengths: Ints


class CallChains(NamedTuple):
    """Call chains as they were recorded.

    Attributes:
        words: addresses and marks, one chain after the other.
        lengths: the number of words of each chain.
        spaces: the address space of each sample's process.
        modes: MISC_CPUMODE_* of each sample.
    """

    words: Ints
    lengths: Ints
    spaces: Ints
    modes: Ints


def modes(rows: Rows) -> Ints:
    """MISC_CPUMODE_* of each sample."""
    misc = rows.get("misc")
    if misc is None:
        return np.full(len(rows), MISC_CPUMODE_UNKNOWN, "i8")
    return misc.values.astype("i8") & MISC_CPUMODE


def recorded(mappings: Mappings, rows: Rows) -> CallChains:
    """The chains of these samples. Where a sample has none, or one without a frame, it is the address
    of the sample itself: `perf record --call-graph dwarf` leaves chains empty in user mode.
    """
    spaces = mappings.of(rows)
    chain, ip = rows.get("callchain"), rows.get("ip")
    if chain is None or chain.offsets is None:
        assert ip is not None
        return CallChains(ip.values, np.ones(len(rows), "i8"), spaces, modes(rows))
    words, lengths = chain.values, np.diff(chain.offsets)
    if ip is not None:
        words, lengths = _with_leaves(words, lengths, ip)
    return CallChains(words, lengths, spaces, modes(rows))


def _with_leaves(words: Ints, lengths: Ints, ip: Column) -> tuple[Ints, Ints]:
    """Words and lengths, with an `ip` of its own for each chain that has marks only."""
    real = np.append(0, np.cumsum(words < np.uint64(PERF_CONTEXT_MAX)))
    ends = np.cumsum(lengths)
    empty = real[ends] == real[ends - lengths]
    if not empty.any():
        return words, lengths
    # Before the marks, where the sample's own mode counts.
    places = (ends - lengths)[empty]
    return np.insert(words, places, ip.values[empty]), lengths + empty


def frames(mappings: Mappings, chains: CallChains) -> Frames:
    """The frames of call chains, without marks."""
    words, lengths, _, _ = chains
    sample = np.repeat(np.arange(len(lengths)), lengths)
    marks = words >= np.uint64(PERF_CONTEXT_MAX)
    # The last mark before each word, or the first word of its chain.
    begins = marks.copy()
    begins[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
    last = np.maximum.accumulate(np.where(begins, np.arange(len(words)), 0))
    mode = np.where(marks[last], _FOREIGN, chains.modes[sample])
    for mark, meant in _MARKS.items():
        mode[words[last] == np.uint64(mark)] = meant
    real = ~marks & (mode != _NO_FRAME)
    spaces = _spaces(mappings, words[real], mode[real], chains.spaces[sample][real])
    bounds = np.append(0, np.cumsum(real))[behind(lengths)]
    return Frames(spaces, words[real], np.diff(bounds))


def _spaces(mappings: Mappings, addresses: Ints, mode: Ints, own: Ints) -> Ints:
    """The address space of each address, by the CPU mode in which it was executed."""
    unknown = mode == MISC_CPUMODE_UNKNOWN
    kernel = mode == MISC_CPUMODE_KERNEL
    if unknown.any():
        kernel |= unknown & in_kernel(mappings, addresses)
    return np.where(kernel, KERNEL, np.where(unknown | (mode == MISC_CPUMODE_USER), own, UNKNOWN))


def in_kernel(mappings: Mappings, addresses: Ints) -> Ints:
    """Test each address for being the kernel's, by nothing but the address."""
    return (addresses >= np.uint64(UPPER_HALF)) | (mappings.indices(KERNEL, addresses) >= 0)
