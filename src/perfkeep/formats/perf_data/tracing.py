"""The TRACING_DATA feature: how tracepoint fields lie, in trace-cmd's format, version 0.6."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence

_MAGIC = bytes([23, 8, 68]) + b"tracing"
_VERSION = b"0.6\0"

# What a 64-bit kernel says in events/header_page and events/header_event. Readers of perf.data
# parse them, and use neither: perf's rings are not ftrace's.
_HEADER_PAGE = (
    b"\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
    b"\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n"
    b"\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
    b"\tfield: char data;\toffset:16;\tsize:4080;\tsigned:1;\n"
)
_HEADER_EVENT = (
    b"# compressed entry header\n"
    b"\ttype_len    :    5 bits\n"
    b"\ttime_delta  :   27 bits\n"
    b"\tarray       :   32 bits\n"
    b"\n"
    b"\tpadding     : type == 29\n"
    b"\ttime_extend : type == 30\n"
    b"\ttime_stamp : type == 31\n"
    b"\tdata max type_len  == 28\n"
)


def _sized(data: bytes) -> bytes:
    return struct.pack("=Q", len(data)) + data


def tracing_data(tracepoints: Sequence[tuple[str, str, int, str]]) -> bytes:
    """The section for these tracepoints: (system, name, id, text of the format file)."""
    little = struct.pack("=H", 1)[0] == 1
    parts = [_MAGIC, _VERSION, bytes([not little, struct.calcsize("P")])]
    parts.append(struct.pack("=I", mmap.PAGESIZE))
    parts += [b"header_page\0", _sized(_HEADER_PAGE), b"header_event\0", _sized(_HEADER_EVENT)]
    parts.append(struct.pack("=I", 0))  # ftrace's own events
    systems: dict[str, dict[str, str]] = {}
    for system, name, _, text in tracepoints:
        systems.setdefault(system, {})[name] = text
    parts.append(struct.pack("=I", len(systems)))
    for system, formats in systems.items():
        parts.append(system.encode() + b"\0" + struct.pack("=I", len(formats)))
        parts += [_sized(text.encode()) for text in formats.values()]
    parts.append(struct.pack("=I", 0))  # kallsyms: the build ids lead to them
    parts.append(struct.pack("=I", 0))  # printk formats
    parts.append(struct.pack("=Q", 0))  # saved command lines: there are COMM records
    return b"".join(parts)
