"""Build records, rings and perf.data files byte by byte, as the kernel and perf write them. Pure.

Test inputs are assembled, not checked in: what a test says is what its bytes hold.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perfkeep.abi.perf_data import HEADER, MAGIC, SECTION, Feature
from perfkeep.abi.perf_event import Attr, Flag, Sample
from perfkeep.abi.records import MISC_COMM_EXEC, MISC_CPUMODE_USER, Record, UserRecord
from perfkeep.formats.perf_data.event import EventDesc, attr_size, pack_attr
from perfkeep.formats.perf_data.features import event_desc

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
        read: Sequence[int] = (),
        callchain: Sequence[int] = (),
        raw: bytes = b"",
        branches: Sequence[tuple[int, int, int]] = (),
        user_regs: Sequence[int] = (),
        user_stack: bytes = b"",
        misc: int = 0,
    ) -> bytes:
        """PERF_RECORD_SAMPLE; fields that the sample_type lacks are left out.

        Args:
            read: the words of READ, in the order of the event's read_format.
            branches: (from, to, flags) each.
            user_regs: values of the registers in sample_regs_user; none: no registers (ABI 0).
        """
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
            Sample.READ: _words(*read),
            Sample.CALLCHAIN: word(len(callchain)) + b"".join(word(ip) for ip in callchain),
            # The kernel pads so that the size and the bytes together end at a word.
            Sample.RAW: struct.pack("=I", len(raw) + (4 - len(raw)) % 8)
            + raw
            + b"\0" * ((4 - len(raw)) % 8),
            Sample.BRANCH_STACK: word(len(branches)) + b"".join(_words(*one) for one in branches),
            Sample.REGS_USER: _words(2, *user_regs) if user_regs else word(0),
            Sample.STACK_USER: word(len(user_stack))
            + (user_stack + word(len(user_stack)) if user_stack else b""),
        }
        return record(Record.SAMPLE, self._fields(values, tuple(values)), misc)

    def other(
        self, kind: int, body: bytes, time: int, pid: int = 1, tid: int = 1, misc: int = 0
    ) -> bytes:
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
        return record(kind, body + self._fields(values, tuple(values)), misc)

    def lost(self, count: int, time: int) -> bytes:
        """PERF_RECORD_LOST"""
        return self.other(Record.LOST, struct.pack("=QQ", self.id, count), time)

    def comm(self, pid: int, tid: int, name: bytes, time: int = 0, exec: bool = False) -> bytes:
        """PERF_RECORD_COMM"""
        body = struct.pack("=II", pid, tid) + name + b"\0"
        return self.other(Record.COMM, body, time, pid, tid, MISC_COMM_EXEC if exec else 0)

    def fork(self, pid: int, tid: int, parent: tuple[int, int], time: int) -> bytes:
        """PERF_RECORD_FORK

        Args:
            parent: (pid, tid).
        """
        body = struct.pack("=IIIIQ", pid, parent[0], tid, parent[1], time)
        return self.other(Record.FORK, body, time, *parent)

    def exit(self, pid: int, tid: int, time: int) -> bytes:
        """PERF_RECORD_EXIT"""
        return self.other(
            Record.EXIT, struct.pack("=IIIIQ", pid, pid, tid, tid, time), time, pid, tid
        )

    def mmap(
        self,
        pid: int,
        start: int,
        length: int,
        path: bytes,
        offset: int = 0,
        time: int = 0,
        misc: int = MISC_CPUMODE_USER,
    ) -> bytes:
        """PERF_RECORD_MMAP

        Args:
            pid: 2**32 - 1 and misc MISC_CPUMODE_KERNEL: the kernel or one of its modules.
        """
        body = struct.pack("=IIQQQ", pid, pid, start, length, offset) + path + b"\0"
        return self.other(Record.MMAP, body, time, pid, pid, misc)

    def mmap2(
        self,
        pid: int,
        start: int,
        length: int,
        path: bytes,
        offset: int = 0,
        time: int = 0,
        inode: int = 77,
        device: tuple[int, int] = (0xFE, 0),
        prot: int = 5,
    ) -> bytes:
        """PERF_RECORD_MMAP2 of a private mapping, readable and executable unless `prot` differs."""
        body = struct.pack(
            "=IIQQQIIQQII", pid, pid, start, length, offset, *device, inode, 1, prot, 2
        )
        return self.other(Record.MMAP2, body + path + b"\0", time, pid, pid, MISC_CPUMODE_USER)


def _words(*numbers: int) -> bytes:
    return struct.pack(f"={len(numbers)}Q", *numbers)


def file_event(name: str, attr: Attr, *ids: int) -> EventDesc:
    """An event of a made-up file."""
    return EventDesc(name, attr, {-1: list(ids)}, None)


def perf_file(
    events: Sequence[EventDesc],
    records: Sequence[bytes],
    features: Mapping[int, bytes] | Mapping[Feature, bytes] | None = None,
    data_size: int | None = None,
    described: bool = True,
) -> bytes:
    """A perf.data file as perf writes to a regular file.

    Args:
        features: bodies by their numbers.
        data_size: the header's; None: the real one. perf leaves 0 until it ends.
        described: adds EVENT_DESC, which has the events' names.
    """
    bodies = {int(number): body for number, body in (features or {}).items()}
    if described:
        bodies.setdefault(Feature.EVENT_DESC, event_desc(events))
    size = attr_size([event.attr for event in events])
    ids, attrs = b"", b""
    for event in events:
        own = _words(*event.all_ids)
        attrs += pack_attr(event.attr, size) + SECTION.pack(HEADER.size + len(ids), len(own))
        ids += own
    data = b"".join(records)
    attrs_at = HEADER.size + len(ids)
    data_at = attrs_at + len(attrs)
    body_at = data_at + len(data) + SECTION.size * len(bodies)
    table, tail = b"", b""
    for _, body in sorted(bodies.items()):
        table += SECTION.pack(body_at + len(tail), len(body))
        tail += body
    bitmap = sum(1 << number for number in bodies).to_bytes(32, sys.byteorder)
    header = HEADER.pack(
        MAGIC, HEADER.size, size + SECTION.size, attrs_at, len(attrs), data_at,
        len(data) if data_size is None else data_size, 0, 0, bitmap,
    )  # fmt: skip
    return header + ids + attrs + data + table + tail


def perf_pipe(events: Sequence[EventDesc], records: Sequence[bytes]) -> bytes:
    """The same as perf writes to a pipe: events come as records, without names."""
    size = attr_size([event.attr for event in events])
    attrs = [
        record(UserRecord.HEADER_ATTR, pack_attr(event.attr, size) + _words(*event.all_ids))
        for event in events
    ]
    return MAGIC + _words(16) + b"".join([*attrs, *records])


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
