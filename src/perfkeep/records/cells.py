"""Columns, and what copies them out of the bytes of records. Pure; needs numpy."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfkeep import records
from perfkeep.records import tracepoint
from perfkeep.records.pure_decode import Part

Ints = NDArray[Any]

_SIZE = struct.Struct("=H")
_PART = struct.Struct("=qqq")
_FIELD = struct.Struct("=iii")


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

    def part(self, which: slice) -> Column:
        """Some rows, one behind the other."""
        if self.offsets is None:
            return Column(self.name, self.form, self.values[which])
        begin, end, _ = which.indices(len(self))
        offsets = self.offsets[begin : end + 1]
        values = self.values[offsets[0] : offsets[-1]]
        return Column(self.name, self.form, values, offsets - offsets[0])


def values(column: Column, at: slice = slice(None)) -> list[Any]:
    """Row by row, as Python has them."""
    if column.offsets is None:
        found: list[Any] = column.values[at].tolist()
        return found
    begins, ends = column.offsets[:-1][at].tolist(), column.offsets[1:][at].tolist()
    some = zip(begins, ends, strict=True)
    if column.form == "ints":
        return [column.values[begin:end].tolist() for begin, end in some]
    whole = np.ascontiguousarray(column.values).data.cast("B")
    raw = [bytes(whole[begin:end]) for begin, end in some]
    if column.form == "bytes":
        return raw
    known = {one: one.decode() for one in set(raw)}
    return [known[one] for one in raw]


class Plan:
    """What is wanted of each of many samples.

    Args:
        parts: of which they are made: a Part, and its numbers a and b.
        fields: the number of the part, or -1 for the record's header; the offset in it; a numpy type.
    """

    def __init__(
        self, parts: Sequence[tuple[Part, int, int]], fields: Sequence[tuple[int, int, str]]
    ) -> None:
        self.rows = len(parts)
        self.types = [type for _, _, type in fields]
        self.parts = b"".join(_PART.pack(*one) for one in parts)
        self.fields = b"".join(_FIELD.pack(at, offset, int(of[1])) for at, offset, of in fields)


class Read(NamedTuple):
    """
    Attributes:
        starts, counts: where in each sample its parts begin, and what they count: a row for each.
        fits: whether a sample fits its record; if one does not, nothing else is to be used.
    """

    fields: list[Ints]
    starts: Ints
    counts: Ints
    fits: Ints


class View:
    """The data as columns."""

    def __init__(self, data: memoryview) -> None:
        self.data = data

    def record(self, at: int) -> memoryview:
        """The whole record at an offset."""
        (size,) = _SIZE.unpack_from(self.data, at + 6)
        return self.data[at : at + size]

    def read(self, at: Ints, plan: Plan) -> Read:
        """Of the records at these places."""
        # numpy's memory: of large arrays in large pages, which the kernel hands out faster.
        starts = np.empty((plan.rows, len(at)), "i8")
        counts, fits = np.empty_like(starts), np.empty(len(at), bool)
        fields = tuple(np.empty(len(at), type) for type in plan.types)
        records.decode(self.data, _q(at), plan.parts, plan.fields, starts, counts, fits, fields)
        return Read(list(fields), starts, counts, fits)

    def words(self, at: Ints) -> Ints:
        """The int64 at each of these places, which are multiples of 8; any number behind the data."""
        words = np.frombuffer(self.data[: len(self.data) & ~7], "i8")
        return words.take(at >> 3, mode="clip") if len(words) else np.zeros(len(at), "i8")

    def join(self, at: Ints, lengths: Ints, total: int, type: str = "u1") -> Ints:
        """What lies at these places, one behind the other, as numbers of this numpy type.

        Args:
            total: the sum of the lengths, in bytes.
        """
        out = np.empty(total // int(type[1]), type)
        records.join(self.data, _q(at), _q(lengths), out)
        return out

    def lists(self, name: str, at: Ints, counts: Ints, type: str = "u8") -> Column:
        """So many numbers of this type at each of these places."""
        offsets, width = behind(counts), int(type[1])
        flat = self.join(at, counts * width, int(offsets[-1]) * width, type)
        return Column(name, "ints", flat, offsets)

    def blobs(self, name: str, at: Ints, lengths: Ints) -> Column:
        offsets = behind(lengths)
        return Column(name, "bytes", self.join(at, lengths, int(offsets[-1])), offsets)


def _q(numbers: Ints) -> Ints:
    return np.ascontiguousarray(numbers, "i8")


def behind(lengths: Ints) -> Ints:
    """Offsets of lists of these lengths."""
    offsets = np.empty(len(lengths) + 1, "i8")
    offsets[0] = 0
    np.cumsum(lengths, out=offsets[1:])
    return offsets


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


class Texts:
    """Different texts, by their numbers."""

    def __init__(self, texts: Iterable[str]) -> None:
        whole = [one.encode(errors="replace") for one in texts]
        self._begins = behind(np.array([len(one) for one in whole], "i8"))
        # With room behind the last one, short ones are copied faster.
        self._text = b"".join(whole) + bytes(16)

    def column(self, name: str, numbers: Ints) -> Column:
        begins, text = records.spell(self._text, self._begins, _q(numbers))
        return Column(name, "text", np.frombuffer(text, "u1"), np.frombuffer(begins, "i8"))
