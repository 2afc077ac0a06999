"""Writes a snapshot as perf.data, ring by ring.

    header │ ids │ attrs │ what runs now │ ring │ ring │ … │ what was told of processes │ features

perf sorts what it reads by time, so rings are written as they come.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Sequence
from typing import BinaryIO

import perfkeep
from perfkeep.abi.perf_data import HEADER, MAGIC, SECTION, Feature
from perfkeep.abi.perf_event import Flag
from perfkeep.abi.records import SAMPLE_ID_WORDS, word_count
from perfkeep.formats.perf_data import synthesized
from perfkeep.formats.perf_data.coverage import Clock, Coverage, RingCopy, Window, cut
from perfkeep.formats.perf_data.event import EventDesc, attr_size, pack_attr
from perfkeep.formats.perf_data.features import sections
from perfkeep.formats.perf_data.host import HostFacts
from perfkeep.formats.perf_data.mixed import mended
from perfkeep.formats.perf_data.told import mapped, relevant


def _trailer_size(events: Sequence[EventDesc]) -> int:
    """Bytes of sample_id that perf expects behind each record that is no sample."""
    first = events[0].attr
    if not first.flags & Flag.SAMPLE_ID_ALL:
        return 0
    return 8 * word_count(first.sample_type, SAMPLE_ID_WORDS)


def _write_attrs(out: BinaryIO, events: Sequence[EventDesc]) -> tuple[int, int, int]:
    """Ids, then attrs; gives the attrs' (offset, size) and the size of one."""
    size = attr_size([event.attr for event in events])
    where = []
    for event in events:
        ids = b"".join(id.to_bytes(8, sys.byteorder) for id in event.all_ids)
        where.append(SECTION.pack(out.tell(), len(ids)))
        out.write(ids)
    at = out.tell()
    for event, section in zip(events, where, strict=True):
        out.write(pack_attr(event.attr, size) + section)
    return at, out.tell() - at, size + SECTION.size


def _write_features(out: BinaryIO, found: dict[Feature, bytes]) -> bytes:
    """The table of sections and the sections; gives the bitmap."""
    at = out.tell() + SECTION.size * len(found)
    bits = 0
    table, bodies = [], []
    for number, data in sorted(found.items()):
        bits |= 1 << number
        table.append(SECTION.pack(at, len(data)))
        bodies.append(data)
        at += len(data)
    out.write(b"".join(table + bodies))
    # An array of unsigned longs, each in the machine's order.
    return struct.pack("=4Q", *(bits >> shift & 2**64 - 1 for shift in range(0, 256, 64)))


def write_snapshot(
    out: BinaryIO,
    events: Sequence[EventDesc],
    rings: Iterable[RingCopy],
    host: HostFacts,
    window: Window,
    command: Sequence[str],
    told: memoryview | bytes = b"",
) -> Coverage:
    """Write a whole perf.data file.

    Args:
        out: seekable, at its beginning.
        events: at least one.
        rings: taken one by one; each is done with before the next is asked for.
        window: the span to keep, in ns of the recording's clock.
        command: the words that made the snapshot.
        told: records that the sideband told of processes.

    Raises:
        OSError: of writing.
    """
    clock, coverage = Clock(events), Coverage(names=[event.name for event in events])
    out.write(b"\0" * HEADER.size)
    attrs_at, attrs_size, each = _write_attrs(out, events)
    data_at = out.tell()
    trailer = _trailer_size(events)
    out.write(b"".join(synthesized.kernel(host, trailer)))
    for process in host.processes:
        out.write(b"".join(synthesized.process(process, trailer)))
    for ring in rings:
        kept, covered = cut(ring, window, clock)
        coverage.cpus.append(covered)
        # Released on a full disk as well: whoever owns the ring's memory wants to unmap it.
        with kept:
            out.write(mended(kept, events, ring.cpu))
    kept_told = relevant(memoryview(told), coverage.first_ns)
    out.write(b"".join(kept_told))
    data_size = out.tell() - data_at
    found = sections(events, host, mapped(kept_told), coverage, command, perfkeep.__version__)
    bitmap = _write_features(out, found)
    out.seek(0)
    out.write(
        HEADER.pack(
            MAGIC, HEADER.size, each, attrs_at, attrs_size, data_at, data_size, 0, 0, bitmap
        )
    )
    out.flush()
    return coverage
