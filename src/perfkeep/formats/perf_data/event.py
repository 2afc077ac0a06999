"""One kind of event as a perf.data file knows it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from perfkeep.abi.perf_event import ATTR_SIZE, Attr

# PERF_ATTR_SIZE_VER0 … VER8: a reader refuses an attr that is longer than it knows, unless
# what it does not know is zero. So each is written at the shortest size that holds it.
_SIZES = (64, 72, 80, 96, 104, 112, 120, 128, ATTR_SIZE)


@dataclass(frozen=True, slots=True)
class EventDesc:
    """A kind of event.

    Attributes:
        ids: the kernel's ids of its events, per CPU; several when threads are recorded.
        tracepoint: (system, name, id, text of its format file).
    """

    name: str
    attr: Attr
    ids: dict[int, list[int]]
    tracepoint: tuple[str, str, int, str] | None

    @property
    def all_ids(self) -> list[int]:
        return [id for _, ids in sorted(self.ids.items()) for id in ids]


def attr_size(attrs: list[Attr]) -> int:
    """The shortest published size that holds every field of these attrs that is not zero."""
    used = max((len(attr.pack().rstrip(b"\0")) for attr in attrs), default=0)
    return next(size for size in _SIZES if size >= used)


def pack_attr(attr: Attr, size: int) -> bytes:
    """The attr cut to `size`, and saying so."""
    data = attr.pack()
    return data[:4] + struct.pack("=I", size) + data[8:size]
