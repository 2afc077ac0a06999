"""Writes what was read of a perf.data file as a plain one: seekable, not compressed, without what the
reader left out.

    header │ ids │ attrs │ data │ table │ features
"""

from __future__ import annotations

import sys
from typing import BinaryIO

from perfkeep.abi.perf_data import HEADER, MAGIC, SECTION, Feature
from perfkeep.formats.perf_data.event import attr_size, pack_attr
from perfkeep.formats.perf_data.features import event_desc
from perfkeep.formats.perf_data.reader import PerfData

#: What tells of parts that are not there any more: AUX data, compressed records, several files.
_GONE = {Feature.AUXTRACE, Feature.COMPRESSED, Feature.DIR_FORMAT}
_CHUNK = 1 << 20


def write_plain(out: BinaryIO, file: PerfData) -> None:
    """
    Args:
        out: at its beginning; written from front to back.

    Raises:
        OSError: of writing.
    """
    size = attr_size([event.attr for event in file.events])
    at, parts, where = HEADER.size, [], []
    for event in file.events:
        ids = b"".join(id.to_bytes(8, sys.byteorder) for id in event.all_ids)
        where.append(SECTION.pack(at, len(ids)))
        parts.append(ids)
        at += len(ids)
    attrs_at = at
    for event, section in zip(file.events, where, strict=True):
        parts.append(pack_attr(event.attr, size) + section)
        at += len(parts[-1])
    features = {int(number): body for number, body in file.features.items() if number not in _GONE}
    # A pipe tells of the events as it goes; a file does so here.
    features.setdefault(Feature.EVENT_DESC, memoryview(event_desc(file.events)))
    bitmap = sum(1 << number for number in features).to_bytes(32, "little")
    out.write(
        HEADER.pack(
            MAGIC, HEADER.size, size + SECTION.size, attrs_at, at - attrs_at, at, len(file.data),
            0, 0, bitmap,
        )
    )  # fmt: skip
    out.write(b"".join(parts))
    for begin in range(0, len(file.data), _CHUNK):
        out.write(file.data[begin : begin + _CHUNK])
    at += len(file.data) + SECTION.size * len(features)
    for _, body in sorted(features.items()):
        out.write(SECTION.pack(at, len(body)))
        at += len(body)
    for _, body in sorted(features.items()):
        out.write(body)
