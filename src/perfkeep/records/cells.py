"""Columns, and what copies them out of the bytes of records. Pure; needs numpy."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfkeep import records
from perfkeep.abi.records import HEADER_SIZE
from perfkeep.records import tracepoint

Ints = NDArray[Any]

_TWO = struct.Struct("=ii")
_WORD = ((0, "u8"),)


@dataclass(slots=True)
class Column:
    """One column of n rows.

    Attributes:
        form: "int": `values` are n integers; of the others row i is
            `values[offsets[i]:offsets[i + 1]]`: "text": UTF-8, "ints": integers, "bytes": bytes.
    """

    name: str
    form: tracepoint.Form
    values: Ints
    offsets: Ints | None = None

    def __len__(self) -> int:
        return len(self.values) if self.offsets is None else len(self.offsets) - 1


class View:
    """The data as columns."""

    def __init__(self, data: memoryview) -> None:
        self.data = data

    def gather(self, at: Ints, wanted: Sequence[tuple[int, str]]) -> list[Ints]:
        """Of each place integers at these offsets, of these numpy types; all lie in the data."""
        fields = b"".join(_TWO.pack(offset, int(type[1])) for offset, type in wanted)
        found = records.gather(self.data, q(at), fields)
        return [np.frombuffer(one, type) for one, (_, type) in zip(found, wanted, strict=True)]

    def join(self, at: Ints, lengths: Ints) -> bytes:
        return records.join(self.data, q(at), q(lengths))


def q(numbers: Ints) -> bytes:
    return np.ascontiguousarray(numbers, "i8").tobytes()


def behind(lengths: Ints) -> Ints:
    """Offsets of lists of these lengths."""
    offsets = np.zeros(len(lengths) + 1, "i8")
    np.cumsum(lengths, out=offsets[1:])
    return offsets


class Cursor:
    """Where in each of many samples the next field begins. A row that turns out not to fit stays
    where it is, and is marked.
    """

    def __init__(self, view: View, offsets: Ints) -> None:
        self.view = view
        self.start = offsets
        self.end = offsets + view.gather(offsets, [(6, "u2")])[0].astype("i8")
        self.at = offsets + HEADER_SIZE
        self.fits = np.ones(len(offsets), bool)

    def need(self, length: Ints | int) -> None:
        """So many bytes must be left."""
        self.fits &= (length >= np.int64(0)) & (self.at + length <= self.end)

    def skip(self, length: Ints | int) -> None:
        self.at = np.where(self.fits, self.at + length, self.start)

    def word(self) -> Ints:
        self.need(8)
        (found,) = self.view.gather(np.where(self.fits, self.at, self.start), _WORD)
        self.skip(8)
        return found

    def count(self, width: int = 8) -> Ints:
        """A word that says how many of something of this width follow."""
        found = self.word()
        most = (self.end - self.at) // width
        self.fits &= found <= most.astype("u8")
        return np.where(self.fits, found, 0).astype("i8")

    def list(self, name: str, counts: Ints, stride: int = 8) -> Column:
        """So many words each; gives the column and skips them."""
        self.need(counts * stride)
        counts = np.where(self.fits, counts, 0)
        flat = np.frombuffer(self.view.join(self.at, counts * stride), "u8")
        self.skip(counts * stride)
        return Column(name, "ints", flat, behind(counts * (stride // 8)))

    def blob(self, name: str, lengths: Ints) -> Column:
        self.need(lengths)
        lengths = np.where(self.fits, lengths, 0)
        flat = np.frombuffer(self.view.join(self.at, lengths), "u1")
        self.skip(lengths)
        return Column(name, "bytes", flat, behind(lengths))


def text_column(name: str, data: memoryview, at: Ints, lengths: Ints) -> Column:
    """Characters up to the first NUL; what is no UTF-8 in them is U+FFFD."""
    begins, text, odd = records.texts(data, q(at), q(lengths))
    if odd:
        whole = [text[one:two] for one, two in pairwise(np.frombuffer(begins, "i8").tolist())]
        for row in np.frombuffer(odd, "i8").tolist():
            whole[row] = whole[row].decode(errors="replace").encode()
        text = b"".join(whole)
        begins = behind(np.array([len(one) for one in whole], "i8")).tobytes()
    return Column(name, "text", np.frombuffer(text, "u1"), np.frombuffer(begins, "i8"))


def codes_to_text(name: str, codes: Ints, names: Sequence[str]) -> Column:
    """A text column of few different texts, which `codes` number."""
    whole = [one.encode(errors="replace") for one in names]
    lengths = np.array([len(one) for one in whole], "i8")
    starts = behind(lengths)[:-1]
    text = records.join(b"".join(whole), q(starts[codes]), q(lengths[codes]))
    return Column(name, "text", np.frombuffer(text, "u1"), behind(lengths[codes]))
