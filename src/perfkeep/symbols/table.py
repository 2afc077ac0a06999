"""Symbols of one file, or of the kernel: from addresses to names. Pure; needs numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfkeep.symbols.demangle import demangle

Ints = NDArray[Any]


class SymbolTable:
    """Sorted ranges with names.

    Args:
        starts: addresses, in any order; of several alike the last counts.
        sizes: 0: up to the next symbol.
        names: NUL-terminated, in one piece.
        places: of each name in it.
        limits: where those of size 0 end at the latest; None: nowhere.
    """

    def __init__(
        self, starts: Ints, sizes: Ints, names: bytes, places: Ints, limits: Ints | None = None
    ) -> None:
        # Of several at one address the longest counts, as it covers the others; of these the last.
        order = np.lexsort((sizes, starts))
        starts, sizes, places = starts[order], sizes[order], places[order]
        last = np.append(starts[1:] != starts[:-1], True) if len(starts) else np.empty(0, bool)
        self.starts: Ints = starts[last].astype("u8")
        self._places: Ints = places[last]
        self._names = names
        following = np.append(self.starts[1:], np.uint64(2**64 - 1)) if len(self.starts) else starts
        sizes = sizes[last].astype("u8")
        if limits is not None:
            following = np.minimum(following, limits[order][last].astype("u8"))
        self._ends: Ints = np.where(sizes > 0, self.starts + sizes, following)

    def __len__(self) -> int:
        return len(self.starts)

    def find(self, addresses: Ints) -> Ints:
        """Index of the symbol that covers each address; -1: none does."""
        if not len(self):
            return np.full(len(addresses), -1, "i8")
        found = np.searchsorted(self.starts, addresses.astype("u8"), side="right") - 1
        inside = (found >= 0) & (addresses < self._ends[np.maximum(found, 0)])
        return np.where(inside, found, -1)

    def name(self, index: int) -> str:
        """Of the symbol at this index of `find`, as it was written in C++ or Rust."""
        at = int(self._places[index])
        end = self._names.find(b"\0", at)
        return demangle(self._names[at : end if end >= 0 else None].decode(errors="replace"))

    def names_of(self, addresses: Ints) -> list[str | None]:
        """Of each address; None: nothing covers it."""
        found = self.find(addresses)
        unique, inverse = np.unique(found, return_inverse=True)
        named: Sequence[str | None] = [
            None if one < 0 else self.name(one) for one in unique.tolist()
        ]
        return [named[at] for at in inverse.tolist()]


#: What a hexadecimal digit is worth; of any other character 255.
_WORTH = np.full(256, 255, "u1")
_WORTH[np.frombuffer(b"0123456789abcdef", "u1")] = np.arange(16)
#: "ffffffff81000000 T _text": digits of an address, and where the name begins.
_DIGITS, _NAME = 16, 19


def from_kallsyms(text: bytes) -> SymbolTable:
    """What /proc/kallsyms says of code, an address of 16 digits each; nothing where it hides them."""
    characters = np.frombuffer(text, "u1")
    ends = np.append(np.nonzero(characters == ord("\n"))[0], len(text))
    begins = np.append(0, ends[:-1] + 1)
    begins = begins[ends - begins > _NAME]
    code = np.frombuffer(b"tTwW", "u1")
    good = np.isin(characters[begins + _DIGITS + 1], code)
    for at in (_DIGITS, _NAME - 1):
        good &= characters[begins + at] == ord(" ")
    starts = np.zeros(len(begins), "u8")
    for at in range(_DIGITS):
        worth = _WORTH[characters[begins + at]]
        good &= worth < 16
        starts = starts << np.uint64(4) | worth
    good &= starts > 0
    # Behind a name stands the end of the line, or a tab and the module's.
    names = text.translate(bytes.maketrans(b"\n\t", b"\0\0"))
    places = begins[good].astype("i8") + _NAME
    return SymbolTable(starts[good], np.zeros(len(places), "u8"), names, places)
