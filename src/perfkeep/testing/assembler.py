"""Builds records and rings byte by byte, as the kernel would write them. Pure.

Test inputs are assembled, not checked in: what a test says is what its bytes hold.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from perfkeep.abi.perf_event import Attr, Flag, Sample
from perfkeep.abi.records import Record

_HEADER = struct.Struct("=IHH")

#: The sample_type that `Assembler` writes when it is not told otherwise.
PLAIN = Sample.IDENTIFIER | Sample.TID | Sample.TIME | Sample.CPU


def record(kind: int, body: bytes, misc: int = 0) -> bytes:
    """Header and body, padded to words.

    Raises:
        ValueError: longer than a record's 16-bit size can say.
    """
    body += b"\0" * (-len(body) % 8)
    size = _HEADER.size + len(body)
    if size > 0xFFF8:
        raise ValueError(f"a record of {size} bytes does not fit its 16-bit size")
    return _HEADER.pack(kind, misc, size) + body


@dataclass(frozen=True)
class Assembler:
    """Writes the records of one event.

    Args:
        id: the kernel's id of the event.
        sample_type: which fields its samples have.
    """

    id: int = 7
    sample_type: Sample = PLAIN
    cpu: int = 0

    @property
    def attr(self) -> Attr:
        return Attr(type=1, sample_period=1, sample_type=self.sample_type, flags=Flag.SAMPLE_ID_ALL)

    def _fields(self, values: dict[Sample, bytes], order: Sequence[Sample]) -> bytes:
        return b"".join(values[field] for field in order if self.sample_type & field)

    def sample(
        self,
        time: int,
        *,
        pid: int = 1,
        tid: int = 1,
        ip: int = 0,
        period: int = 1,
        addr: int = 0,
        callchain: Sequence[int] = (),
        raw: bytes = b"",
    ) -> bytes:
        """PERF_RECORD_SAMPLE; fields that the sample_type lacks are left out."""
        word = struct.Struct("=Q").pack
        values = {
            Sample.IDENTIFIER: word(self.id),
            Sample.IP: word(ip),
            Sample.TID: struct.pack("=II", pid, tid),
            Sample.TIME: word(time),
            Sample.ADDR: word(addr),
            Sample.ID: word(self.id),
            Sample.STREAM_ID: word(self.id),
            Sample.CPU: struct.pack("=II", self.cpu, 0),
            Sample.PERIOD: word(period),
            Sample.CALLCHAIN: word(len(callchain)) + b"".join(word(ip) for ip in callchain),
            # The kernel pads so that the size and the bytes together end at a word.
            Sample.RAW: struct.pack("=I", len(raw) + (4 - len(raw)) % 8)
            + raw
            + b"\0" * ((4 - len(raw)) % 8),
        }
        return record(Record.SAMPLE, self._fields(values, tuple(values)))

    def other(self, kind: int, body: bytes, time: int, pid: int = 1, tid: int = 1) -> bytes:
        """Any other record, with its sample_id trailer."""
        word = struct.Struct("=Q").pack
        values = {
            Sample.TID: struct.pack("=II", pid, tid),
            Sample.TIME: word(time),
            Sample.ID: word(self.id),
            Sample.STREAM_ID: word(self.id),
            Sample.CPU: struct.pack("=II", self.cpu, 0),
            Sample.IDENTIFIER: word(self.id),
        }
        body += b"\0" * (-len(body) % 8)
        return record(kind, body + self._fields(values, tuple(values)))

    def lost(self, count: int, time: int) -> bytes:
        """PERF_RECORD_LOST"""
        return self.other(Record.LOST, struct.pack("=QQ", self.id, count), time)

    def comm(self, pid: int, tid: int, name: bytes, time: int = 0) -> bytes:
        """PERF_RECORD_COMM"""
        return self.other(Record.COMM, struct.pack("=II", pid, tid) + name + b"\0", time)


class Ring:
    """A ring as the kernel fills it.

    Args:
        size: of the data area; a power of two.
        backward: grows downwards (write_backward), as flight rings do.
    """

    def __init__(self, size: int, backward: bool = True) -> None:
        self.size = size
        self.backward = backward
        self.head = 0
        self.area = bytearray(size)

    def write(self, data: bytes) -> None:
        """One record, overwriting the oldest bytes."""
        if self.backward:
            self.head -= len(data)
        at = self.head
        for place, byte in enumerate(data):
            self.area[(at + place) % self.size] = byte
        if not self.backward:
            self.head += len(data)

    @property
    def data_head(self) -> int:
        """As the control page shows it: modulo 2^64."""
        return self.head & (1 << 64) - 1

    def linear(self) -> bytes:
        """The valid bytes in one piece, as a copy of the broker has them."""
        written = abs(self.head)
        at = self.head % self.size
        if written < self.size:
            return bytes(self.area[at:] if self.backward else self.area[:at]) if written else b""
        return bytes(self.area[at:] + self.area[:at])
