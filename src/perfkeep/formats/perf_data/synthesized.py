"""Records that stand for what was there before the recording began: names and mappings.

Each carries an empty sample_id trailer, so that it counts as older than everything else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from perfkeep.abi.records import MISC_CPUMODE_KERNEL, MISC_CPUMODE_USER, Record
from perfkeep.formats.perf_data.host import HostFacts, ProcessFacts

_HEADER = struct.Struct("=IHH")
_MMAP2 = struct.Struct("=IIQQQIIQQII")
_COMM = struct.Struct("=II")

_KERNEL = 0xFFFFFFFF  # HOST_KERNEL_ID, as u32
_MAP_SHARED, _MAP_PRIVATE = 1, 2
# Where modules begin on x86_64; the kernel's own text ends before it.
_MODULES_X86 = 0xFFFFFFFFC0000000
_SPAN = 1 << 30


def _record(kind: Record, misc: int, body: bytes, text: bytes, trailer: int) -> bytes:
    """Header, body, NUL-terminated text padded to words, trailer of zeros."""
    text += b"\0" * (8 - len(text) % 8)
    size = 8 + len(body) + len(text) + trailer
    return _HEADER.pack(kind, misc, size) + body + text + b"\0" * trailer


def kernel(host: HostFacts, trailer: int) -> Iterator[bytes]:
    """Where the kernel and its modules lie; nothing when their addresses are hidden."""
    text = host.kernel_text
    if not text:
        return
    length = _MODULES_X86 - text if text < _MODULES_X86 <= text + _SPAN else _SPAN
    body = struct.pack("=IIQQQ", _KERNEL, 0, text, length, text)
    yield _record(Record.MMAP, MISC_CPUMODE_KERNEL, body, b"[kernel.kallsyms]_text", trailer)
    for module in host.modules:
        body = struct.pack("=IIQQQ", _KERNEL, 0, module.address, module.size, 0)
        name = f"[{module.name}]".encode()
        yield _record(Record.MMAP, MISC_CPUMODE_KERNEL, body, name, trailer)


def process(one: ProcessFacts, trailer: int) -> Iterator[bytes]:
    """The names of a process's threads and its executable mappings."""
    for tid, name in one.threads.items():
        yield _record(Record.COMM, 0, _COMM.pack(one.pid, tid), name, trailer)
    for m in one.mappings:
        flags = _MAP_SHARED if m.shared else _MAP_PRIVATE
        body = _MMAP2.pack(
            one.pid, one.pid, m.start, m.length, m.offset, m.major, m.minor, m.inode, 0,
            m.protection, flags,
        )  # fmt: skip
        yield _record(Record.MMAP2, MISC_CPUMODE_USER, body, m.path, trailer)
