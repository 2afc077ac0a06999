"""Broken call chains: those of code without frame pointers. Pure; needs numpy.

The kernel follows frame pointers. Where code uses the register for something else, the chain ends
behind the innermost function, or goes on with whatever lies in memory, which is rarely an address of
code. A return address lies in an executable mapping; code of just-in-time compilers does as well.

    leaf  in f                  broken: a function has a caller
    leaf  0x7fff12345678  ...   broken: no code is mapped there; the frame is dropped
    leaf  main  start  0x1      whole: programs begin in code without frame pointers

Nothing is said of a sample whose own address is in no known mapping: the process's mappings are
not known then.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfkeep.abi.perf_event import Attr, Flag, Sample
from perfkeep.analysis.chains import Frames
from perfkeep.analysis.mappings import KERNEL, Mappings
from perfkeep.records.cells import behind

Ints = NDArray[Any]

#: Shares below these are not worth a line: the loader and the C library of most distributions
#: have no frame pointers, and any program spends some time there.
_OF_A_PROGRAM, _OF_ALL = 0.05, 0.01
_PROGRAMS = 3


class Judged(NamedTuple):
    """
    Attributes:
        real: of each frame whether it can be one.
        files: of each chain the file whose code breaks it; "": it is whole; None: it cannot be
            judged.
    """

    real: Ints
    files: list[str | None]


def can_judge(attr: Attr) -> bool:
    """True if an event records what the kernel finds by frame pointers."""
    return bool(
        attr.sample_type & Sample.CALLCHAIN
        and not attr.flags & Flag.EXCLUDE_CALLCHAIN_USER
        and attr.sample_max_stack != 1
    )


def judge(mappings: Mappings, frames: Frames) -> Judged:
    """Judge call chains, one after the other in `frames`."""
    spaces, addresses, lengths = frames
    user, code = spaces > KERNEL, _code(mappings, spaces, addresses)
    chain = np.repeat(np.arange(len(lengths)), lengths)
    # The first frame of the process in each chain; the kernel's are before it.
    places = np.nonzero(user)[0]
    chains, first = np.unique(chain[places], return_index=True)
    leaves = places[first]
    known = code[leaves] >= 0
    judged = np.zeros(len(lengths), bool)
    judged[chains] = known
    real = ~user | (code >= 0) | ~judged[chain]
    callers = np.minimum(leaves + 1, len(spaces) - 1)
    whole = (leaves < behind(lengths)[1:][chains] - 1) & (code[callers] >= 0)
    files: list[str | None] = [None] * len(lengths)
    for number, leaf, complete in zip(
        chains[known].tolist(), leaves[known].tolist(), whole[known].tolist(), strict=True
    ):
        mapping = mappings.spaces[int(spaces[leaf])].mappings[int(code[leaf])]
        files[number] = "" if complete else mapping.path
    return Judged(real, files)


def _code(mappings: Mappings, spaces: Ints, addresses: Ints) -> Ints:
    """The number of the executable mapping of its process that each address is in; -1: in none."""
    found = np.full(len(spaces), -1, "i8")
    for space in np.unique(spaces[spaces > KERNEL]).tolist():
        of_space = np.nonzero(spaces == space)[0]
        executable = np.array([one.executable for one in mappings.spaces[space].mappings], bool)
        at = mappings.indices(space, addresses[of_space])
        found[of_space] = np.where(np.append(executable, False)[at], at, -1)
    return found


def sentence(samples: Counter[tuple[str, int]], files: list[str | None]) -> str:
    """The programs whose call chains are broken, and what to do; "": there is nothing to say.

    Args:
        samples: by (name of the thread, number of the chain).
        files: see Judged.
    """
    judged: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    where: Counter[tuple[str, str]] = Counter()
    for (program, chain), count in samples.items():
        file = files[chain]
        if file is None:
            continue
        judged[program] += count
        if file:
            broken[program] += count
            where[program, file] += count
    for program in list(broken):
        if broken[program] < _OF_A_PROGRAM * judged[program]:
            del broken[program]
    if not broken or broken.total() < _OF_ALL * judged.total():
        return ""
    parts = []
    for program, count in broken.most_common(_PROGRAMS):
        file = max((one for one in where if one[0] == program), key=lambda one: where[one])[1]
        share = count / judged[program]
        parts.append(f"{share:.0%} of the samples of {program} (in {os.path.basename(file)})")
    more = len(broken) - _PROGRAMS
    if more > 0:
        parts.append(f"{more} more program{'s' if more > 1 else ''}")
    return (
        f"broken call chains: {', '.join(parts)}; the files in brackets lack frame "
        "pointers, which hides the callers: build them with -fno-omit-frame-pointer"
    )
