"""Columns, and what copies them out of the bytes of records. Pure; needs numpy."""

from __future__ import annotations

import struct
import threading
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
#: Places from which on a second thread is worth its start.
_MANY = 1 << 15


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
        # numpy's memory: of large arrays in large pages, which the kernel hands out faster.
        columns = tuple(np.empty(len(at), type) for _, type in wanted)
        places = _q(at)
        if len(places) < _MANY:
            records.gather(self.data, places, fields, columns)
        else:
            self._gather_in_two(places, fields, columns)
        return list(columns)

    def _gather_in_two(self, places: Ints, fields: bytes, columns: tuple[Ints, ...]) -> None:
        """In two threads: most of the time goes into waiting for memory."""
        half, failed = len(places) // 2, list[BaseException]()

        def first() -> None:
            try:
                parts = tuple(one[:half] for one in columns)
                records.gather(self.data, places[:half], fields, parts)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=first)
        thread.start()
        try:
            records.gather(self.data, places[half:], fields, tuple(one[half:] for one in columns))
        finally:
            thread.join()
        if failed:
            raise failed[0]

    def join(self, at: Ints, lengths: Ints, type: str = "u1") -> Ints:
        """What lies at these places, one behind the other, as numbers of this numpy type."""
        out = np.empty(int(lengths.sum()) // int(type[1]), type)
        records.join(self.data, _q(at), _q(lengths), out)
        return out


def _q(numbers: Ints) -> Ints:
    return np.ascontiguousarray(numbers, "i8")


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
        #: Whether every row does, which is all but always so.
        self.all = True

    def need(self, length: Ints | int) -> None:
        """So many bytes must be left."""
        self.only((length >= np.int64(0)) & (self.at + length <= self.end))

    def only(self, fits: Ints) -> None:
        """Those for which this does not hold do not fit."""
        if not fits.all():
            self.all = False
            self.fits &= fits

    def skip(self, length: Ints | int) -> None:
        further = self.at + length
        self.at = further if self.all else np.where(self.fits, further, self.start)

    def word(self, type: str = "u8") -> Ints:
        """The next one; with another type the beginning of it, and it is not skipped."""
        self.need(int(type[1]))
        at = self.at if self.all else np.where(self.fits, self.at, self.start)
        (found,) = self.view.gather(at, ((0, type),))
        if type == "u8":
            self.skip(8)
        return found

    def count(self, width: int = 8) -> Ints:
        """A word that says how many of something of this width follow."""
        found = self.word()
        self.only(found <= ((self.end - self.at) // width).astype("u8"))
        return found.view("i8") if self.all else np.where(self.fits, found, 0).astype("i8")

    def list(self, name: str, counts: Ints, stride: int = 8) -> Column:
        """So many words each; gives the column and skips them."""
        self.need(counts * stride)
        counts = counts if self.all else np.where(self.fits, counts, 0)
        flat = self.view.join(self.at, counts * stride, "u8")
        self.skip(counts * stride)
        return Column(name, "ints", flat, behind(counts * (stride // 8)))

    def blob(self, name: str, lengths: Ints) -> Column:
        self.need(lengths)
        lengths = lengths if self.all else np.where(self.fits, lengths, 0)
        flat = self.view.join(self.at, lengths)
        self.skip(lengths)
        return Column(name, "bytes", flat, behind(lengths))


def text_column(name: str, data: memoryview, at: Ints, lengths: Ints) -> Column:
    """Characters up to the first NUL; what is no UTF-8 in them is U+FFFD."""
    begins, text, odd = records.texts(data, _q(at), _q(lengths))
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
    sizes = lengths[codes]
    text = View(memoryview(b"".join(whole))).join(starts[codes], sizes)
    return Column(name, "text", text, behind(sizes))
