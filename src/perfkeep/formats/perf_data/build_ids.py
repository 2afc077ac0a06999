"""HEADER_BUILD_ID: which build of which file had samples."""

from __future__ import annotations

import struct

_ENTRY = struct.Struct("=IHHi20sB3x")
_HAS_SIZE = 1 << 15  # PERF_RECORD_MISC_BUILD_ID_SIZE


def build_ids(section: memoryview) -> dict[str, str]:
    """Build ids in hex by path; what does not fit is left out."""
    found: dict[str, str] = {}
    at = 0
    while at + _ENTRY.size <= len(section):
        _, misc, size, _, raw, length = _ENTRY.unpack_from(section, at)
        if size < _ENTRY.size or at + size > len(section):
            break
        path = bytes(section[at + _ENTRY.size : at + size]).split(b"\0")[0]
        id = raw[: min(length, 20)] if misc & _HAS_SIZE else raw
        found[path.decode(errors="surrogateescape")] = id.hex()
        at += size
    return found
