"""The feature sections of a perf.data file: who wrote it, where, and what its events are."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from perfkeep.abi.perf_data import NAME_ALIGN, Feature
from perfkeep.abi.perf_event import Attr, ClockId, Flag
from perfkeep.abi.records import MISC_CPUMODE_KERNEL, MISC_CPUMODE_USER
from perfkeep.formats.perf_data.coverage import Coverage
from perfkeep.formats.perf_data.event import EventDesc, attr_size, pack_attr
from perfkeep.formats.perf_data.host import FileFacts, HostFacts
from perfkeep.formats.perf_data.tracing import tracing_data
from perfkeep.symbols import build_id

_CLOCK_DATA_VERSION = 1
# PERF_RECORD_MISC_BUILD_ID_SIZE: the byte behind the id says how long it is.
_BUILD_ID_SIZE = 1 << 15
_BUILD_ID_ROOM = 20


def string(text: str | bytes) -> bytes:
    """perf_header_string: u32 length, then the text with its NUL, padded."""
    data = text.encode(errors="surrogateescape") if isinstance(text, str) else text
    room = (len(data) + NAME_ALIGN) // NAME_ALIGN * NAME_ALIGN
    return struct.pack("=I", room) + data.ljust(room, b"\0")


def event_desc(events: Sequence[EventDesc]) -> bytes:
    """The events' names, with their attrs and ids."""
    size = attr_size([event.attr for event in events])
    parts = [struct.pack("=II", len(events), size)]
    for event in events:
        ids = event.all_ids
        parts.append(pack_attr(event.attr, size))
        parts.append(struct.pack("=I", len(ids)) + string(event.name))
        parts.append(struct.pack(f"={len(ids)}Q", *ids))
    return b"".join(parts)


def _build_id(id: bytes, path: bytes, misc: int) -> bytes:
    """struct perf_record_header_build_id"""
    id = id[:_BUILD_ID_ROOM]
    name = path.ljust((len(path) + NAME_ALIGN) // NAME_ALIGN * NAME_ALIGN, b"\0")
    head = struct.pack("=IHHi", 0, misc | _BUILD_ID_SIZE, 36 + len(name), -1)
    return head + id.ljust(_BUILD_ID_ROOM, b"\0") + bytes([len(id), 0, 0, 0]) + name


def build_ids(host: HostFacts, told: Mapping[bytes, tuple[int, FileFacts]]) -> bytes:
    """Of the kernel, and of every file that some process executes.

    Args:
        told: by their paths files that processes executed, by the sideband.
    """
    parts = []
    kernel = build_id.in_notes(host.kernel_notes)
    if kernel:
        parts.append(_build_id(kernel, b"[kernel.kallsyms]", MISC_CPUMODE_KERNEL))
    mapped = {**told} | {
        m.path: (process.pid, m) for process in host.processes for m in process.mappings
    }
    for path in sorted(path for path in mapped if path.startswith(b"/") and path[:2] != b"//"):
        found = _of_mapping(*mapped[path])
        if found:
            parts.append(_build_id(found, path, MISC_CPUMODE_USER))
    return b"".join(parts)


def _of_mapping(pid: int, mapping: FileFacts) -> bytes | None:
    """Of the very file that is mapped. The one of that name may be another by now, after an
    upgrade, or here, outside of the container; root can still open what is mapped.
    """
    first, last = mapping.start, mapping.start + mapping.length
    return build_id.of_file(mapping.path, mapping.inode) or build_id.of_file(
        b"/proc/%d/map_files/%x-%x" % (pid, first, last)
    )


def _is_monotonic(attr: Attr) -> bool:
    return bool(attr.flags & Flag.USE_CLOCKID) and attr.clockid == ClockId.MONOTONIC


def sections(
    events: Sequence[EventDesc],
    host: HostFacts,
    told: Mapping[bytes, tuple[int, FileFacts]],
    coverage: Coverage,
    command: Sequence[str],
    version: str,
) -> dict[Feature, bytes]:
    """Every feature that the file has, by number."""
    found = {
        Feature.HOSTNAME: string(host.hostname),
        Feature.OSRELEASE: string(host.release),
        Feature.VERSION: string(f"perfkeep {version}"),
        Feature.ARCH: string(host.machine),
        Feature.NRCPUS: struct.pack("=II", host.cpus_possible, host.cpus_online),
        Feature.CPUDESC: string(host.cpu_description),
        Feature.CPUID: string(host.cpu_id),
        Feature.TOTAL_MEM: struct.pack("=Q", host.memory_kib),
        Feature.CMDLINE: struct.pack("=I", len(command)) + b"".join(map(string, command)),
        Feature.EVENT_DESC: event_desc(events),
    }
    if host.boot_id:
        found[Feature.BOOT_ID] = string(host.boot_id)
    if all(_is_monotonic(event.attr) for event in events):
        found[Feature.CLOCKID] = struct.pack("=Q", 1)  # its resolution in ns
        found[Feature.CLOCK_DATA] = struct.pack(
            "=IIQQ", _CLOCK_DATA_VERSION, ClockId.MONOTONIC, host.realtime_ns, host.monotonic_ns
        )
    ids = build_ids(host, told)
    if ids:
        found[Feature.BUILD_ID] = ids
    tracepoints = [event.tracepoint for event in events if event.tracepoint]
    if tracepoints:
        found[Feature.TRACING_DATA] = tracing_data(tracepoints)
    if coverage.first_ns is not None and coverage.last_ns is not None:
        found[Feature.SAMPLE_TIME] = struct.pack("=QQ", coverage.first_ns, coverage.last_ns)
    return found
