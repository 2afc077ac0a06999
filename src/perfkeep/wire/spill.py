"""How a crash copy of rings lies on disk. Pure.

A directory has one `meta`, one `told` and a `ring.CPU` for each CPU. All space is there from the
beginning, so a disk that fills up later harms nothing.

    ring.CPU   page 0: slots A, B (commits, in turn) and I (the intent)
               then two areas, each as large as the ring's data, with records at the ring's offsets
    meta       slots A, B (in turn): header, JSON of Meta
    told       page 0: slots A, B (in turn)
               then two areas, for what the sideband told: a log that only grows, and behind it what
               had not been read yet, with a checksum, as the log grows into its place. A log that
               is begun anew goes into the other area

A write goes: intent, data, commit, each on disk before the next. What has newly been recorded is
added to the area of the last commit, in the place of the oldest; the intent tells how much of that
may be gone if there is no commit behind it. More than half a ring goes into the other area, and
the last commit stays whole until the next.
"""

from __future__ import annotations

import errno
import mmap
import struct
import zlib
from typing import Any, NamedTuple

import msgspec

from perfkeep.errors import DataError
from perfkeep.wire import older
from perfkeep.wire.sideband import MOST_LOGGED, RING_BYTES
from perfkeep.wire.structs import KindInSnapshot, RecordingInfo

VERSION = 1
PAGE = 4096
COMMIT, INTENT = 1, 2

_MASK64 = (1 << 64) - 1
_MAGIC_RING, _MAGIC_META, _MAGIC_TOLD = b"PKRING\0\0", b"PKMETA\0\0", b"PKTOLD\0\0"
#: Files that are of no CPU, where files go by CPU.
META, TOLD = -1, -2
#: Where the slots of a ring's file lie: a sector each, which disks write whole.
SLOT_A, SLOT_B, SLOT_I = 0, 512, 1024

# magic, version, what, backward, cpu, area, sequence, ring bytes, head, valid, monotonic, realtime,
# boot id; behind it the crc32 of it all
_SLOT = struct.Struct("<8sIBBHIQQQQQQ36s4x")
_CRC = struct.Struct("<I")
# magic, version, sequence, length, crc32 of the JSON; behind it the crc32 of it all
_META = struct.Struct("<8sIQQI")


class Slot(NamedTuple):
    """What page 0 of a ring's file says.

    Attributes:
        what: COMMIT or INTENT.
        area: 0 or 1.
        head: the ring's data_head that the area stands for, or will.
        valid: bytes of records from there, downwards in time.
        monotonic_ns, realtime_ns: when.
    """

    what: int
    backward: bool
    cpu: int
    area: int
    sequence: int
    ring_bytes: int
    head: int
    valid: int
    monotonic_ns: int
    realtime_ns: int
    boot_id: str

    def pack(self) -> bytes:
        text = _SLOT.pack(
            _MAGIC_RING,
            VERSION,
            self.what,
            self.backward,
            self.cpu,
            self.area,
            self.sequence,
            self.ring_bytes,
            self.head & _MASK64,
            self.valid,
            self.monotonic_ns,
            self.realtime_ns,
            self.boot_id.encode(),
        )
        return text + _CRC.pack(zlib.crc32(text))


def _whole(layout: struct.Struct, magic: bytes, data: bytes) -> tuple[Any, ...] | None:
    """What stands behind magic and version; None: it was never written, or not wholly.

    Raises:
        DataError: a newer perfkeep wrote it.
    """
    text = bytes(data[: layout.size])
    if len(data) < layout.size + _CRC.size or not text.startswith(magic):
        return None
    if _CRC.unpack_from(data, layout.size)[0] != zlib.crc32(text):
        return None
    _, version, *rest = layout.unpack(text)
    if version != VERSION:
        raise DataError(f"a perfkeep with format {version} wrote it; this one reads {VERSION}", 8)
    return tuple(rest)


def parse_slot(data: bytes) -> Slot | None:
    """One slot; None: it was never written, or not wholly.

    Raises:
        DataError: a newer perfkeep wrote it.
    """
    found = _whole(_SLOT, _MAGIC_RING, data)
    if found is None:
        return None
    what, backward, cpu, area, *numbers, boot_id = found
    sequence, ring_bytes, head, valid, monotonic, realtime = numbers
    sensible = ring_bytes and not ring_bytes % mmap.PAGESIZE and valid <= ring_bytes
    if not sensible or what not in (COMMIT, INTENT) or area > 1:
        return None
    return Slot(
        what, bool(backward), cpu, area, sequence, ring_bytes, head, valid, monotonic, realtime,
        boot_id.rstrip(b"\0").decode("ascii", "replace"),
    )  # fmt: skip


def ring_file_bytes(ring_bytes: int) -> int:
    return PAGE + 2 * ring_bytes


class RingState(NamedTuple):
    """The newest commit, and how much of it can be trusted."""

    slot: Slot
    valid: int


def ring_state(page: bytes) -> RingState:
    """What page 0 of a ring's file stands for.

    Raises:
        DataError: nothing was ever committed, or a newer perfkeep wrote it.
    """
    slots = [parse_slot(page[at : at + 512]) for at in (SLOT_A, SLOT_B, SLOT_I)]
    commits = [slot for slot in slots[:2] if slot is not None and slot.what == COMMIT]
    if not commits:
        raise DataError("nothing was ever written to it wholly", 0)
    newest = max(commits, key=lambda slot: slot.sequence)
    intent, valid = slots[2], newest.valid
    if intent is not None and intent.sequence > newest.sequence and intent.area == newest.area:
        valid = max(0, min(valid, newest.ring_bytes - moved(newest, intent.head)))
    return RingState(newest, valid)


def moved(slot: Slot, head: int) -> int:
    """Bytes that the kernel has written between a slot's head and another one."""
    return (slot.head - head if slot.backward else head - slot.head) & _MASK64


def pieces(head: int, count: int, size: int, backward: bool) -> list[tuple[int, int]]:
    """(start, end) in an area of the `count` newest bytes before `head`, in the order of a copy:
    newest first for a backward ring, oldest first for a forward one.
    """
    start = (head if backward else head - count) % size
    first = min(count, size - start)
    found = [(start, start + first), (0, count - first)]
    return [(low, high) for low, high in found if high > low]


# magic, version, area, sequence, logged, unread, crc32 of what is unread; then the crc32 of it all
_TOLD = struct.Struct("<8sIIQQQI")


class ToldSlot(NamedTuple):
    """What page 0 of `told` says.

    Attributes:
        logged: bytes of the log, which begins where the area does.
        unread: bytes behind it, of which crc32 is the checksum.
    """

    area: int
    sequence: int
    logged: int
    unread: int
    crc32: int

    def pack(self) -> bytes:
        text = _TOLD.pack(_MAGIC_TOLD, VERSION, *self)
        return text + _CRC.pack(zlib.crc32(text))


def told_slot(page: bytes) -> ToldSlot | None:
    """The newest slot; None: there is none.

    Raises:
        DataError: a newer perfkeep wrote it.
    """
    found = [one for at in (SLOT_A, SLOT_B) if (one := _parse_told(page[at : at + 512]))]
    return max(found, key=lambda slot: slot.sequence, default=None)


def _parse_told(data: bytes) -> ToldSlot | None:
    found = _whole(_TOLD, _MAGIC_TOLD, data)
    return ToldSlot(*found) if found is not None and found[0] <= 1 else None


def told_file_bytes(cpus: int) -> int:
    """Room for a log and what is in all rings at most, twice."""
    return PAGE + 2 * (MOST_LOGGED + (1 + cpus) * RING_BYTES)


def told_area(file_bytes: int) -> int:
    """How large each area of such a file is."""
    return max(0, file_bytes - PAGE) // 2


class Meta(msgspec.Struct, frozen=True):
    """What the rings belong to. `sideband`: how what `told` holds was recorded."""

    version: int
    boot_id: str
    recording: RecordingInfo
    kinds: list[KindInSnapshot]
    sideband: KindInSnapshot | None = None


def meta_file_bytes(length: int) -> int:
    """Room for two descriptions, each with twice what there is to say now, and some."""
    return 2 * _half(2 * length + (64 << 10))


def _half(length: int) -> int:
    return -(-length // PAGE) * PAGE


def pack_meta(meta: Meta, sequence: int, capacity: int) -> tuple[int, bytes]:
    """Where to write what, in a file of `capacity` bytes.

    Raises:
        DataError: ENOSPC: it has outgrown the file.
    """
    text = msgspec.json.encode(meta)
    half = capacity // 2 // PAGE * PAGE
    head = _META.pack(_MAGIC_META, VERSION, sequence, len(text), zlib.crc32(text))
    data = head + _CRC.pack(zlib.crc32(head)) + text
    if len(data) > half:
        raise DataError(
            "the description of the recording has outgrown its file", half, errno.ENOSPC
        )
    return half * (sequence % 2), data


def parse_meta(data: bytes) -> tuple[int, Meta]:
    """The sequence number and the newest description that is whole.

    Raises:
        DataError: there is none, or a newer perfkeep wrote it.
    """
    half = len(data) // 2 // PAGE * PAGE
    found = [one for at in (0, half) if (one := _parse_half(data[at : at + half])) is not None]
    if not found:
        raise DataError("no description of a recording is in it", 0)
    return max(found, key=lambda one: one[0])


def _parse_half(data: bytes) -> tuple[int, Meta] | None:
    found = _whole(_META, _MAGIC_META, data)
    if found is None:
        return None
    sequence, length, crc = found
    begin = _META.size + _CRC.size
    text = data[begin : begin + length]
    if len(text) != length or zlib.crc32(text) != crc:
        return None
    try:
        return sequence, older.decode(text, Meta)
    except (msgspec.DecodeError, RecursionError):
        return None
