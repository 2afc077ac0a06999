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


def from_kallsyms(text: bytes) -> SymbolTable:
    """What /proc/kallsyms says of code; nothing where it hides the addresses."""
    starts, places, names = [], [], bytearray()
    for line in text.splitlines():
        words = line.split(None, 3)
        if len(words) < 3 or words[1] not in (b"t", b"T", b"w", b"W"):
            continue
        try:
            address = int(words[0], 16)
        except ValueError:
            continue
        if address:
            starts.append(address)
            places.append(len(names))
            names += words[2] + b"\0"
    count = len(starts)
    return SymbolTable(
        np.array(starts, "u8"), np.zeros(count, "u8"), bytes(names), np.array(places, "i8")
    )
