"""What /proc and /sys say of this machine and its processes now: the context of a snapshot.

Reads only; what vanishes while it is read, or may not be read, is left out.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

_EXECUTABLE = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) (..x.) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *(.*)$", re.M
)


@dataclass(frozen=True, slots=True)
class Mapping:
    """One executable mapping, as PERF_RECORD_MMAP2 tells it."""

    start: int
    length: int
    offset: int
    major: int
    minor: int
    inode: int
    protection: int
    shared: bool
    path: bytes


@dataclass(frozen=True, slots=True)
class Process:
    """A process, its threads by id and name, and its executable mappings."""

    pid: int
    threads: dict[int, bytes]
    mappings: list[Mapping]


@dataclass(frozen=True, slots=True)
class Module:
    """A kernel module: where its code lies."""

    name: str
    address: int
    size: int


@dataclass(slots=True)
class Host:
    """This machine at one moment.

    Attributes:
        kernel_text: address of the kernel's _text, 0 when it is hidden from this user.
        monotonic_ns, realtime_ns: the two clocks at the same moment.
    """

    hostname: str
    release: str
    machine: str
    cpus_online: int
    cpus_possible: int
    cpu_description: str
    cpu_id: str
    memory_kib: int
    kernel_text: int
    kernel_notes: bytes
    modules: list[Module]
    monotonic_ns: int
    realtime_ns: int
    processes: list[Process] = field(default_factory=list)
    boot_id: str = ""


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def _maybe(path: str) -> bytes:
    try:
        return _read(path)
    except OSError:
        return b""


def _mappings(pid: int) -> list[Mapping]:
    found = []
    for start, end, flags, offset, major, minor, inode, path in _EXECUTABLE.findall(
        _maybe(f"/proc/{pid}/maps")
    ):
        first, last = int(start, 16), int(end, 16)
        protection = 4 | (1 if flags[0:1] == b"r" else 0) | (2 if flags[1:2] == b"w" else 0)
        found.append(
            Mapping(
                first,
                last - first,
                int(offset, 16),
                int(major, 16),
                int(minor, 16),
                int(inode),
                protection,
                flags[3:4] == b"s",
                _path(pid, first, last, path),
            )
        )
    return found


def _path(pid: int, first: int, last: int, shown: bytes) -> bytes:
    """A mapping's path as PERF_RECORD_MMAP2 has it. /proc/PID/maps shows a line feed as \\012, which may
    be part of a name as well; the link in map_files has the name itself.
    """
    if b"\\012" not in shown:
        return shown or b"//anon"
    try:
        return os.readlink(b"/proc/%d/map_files/%x-%x" % (pid, first, last))
    except OSError:
        return shown.replace(b"\\012", b"\n")


# Fields of /proc/PID/stat behind the command, from 0: proc_pid_stat(5) counts from 3.
_FLAGS, _THREADS = 6, 17
_PF_KTHREAD = 0x00200000


def process(pid: int) -> Process | None:
    """One process, or None: it has gone."""
    # One read tells of most processes all there is: kernel threads have no mappings, and who
    # has one thread needs no look into its task directory.
    head, found, rest = _maybe(f"/proc/{pid}/stat").rpartition(b")")
    if not found:
        return None
    fields = rest.split()
    threads = {pid: head.partition(b"(")[2]}
    if int(fields[_FLAGS]) & _PF_KTHREAD:
        return Process(pid, threads, [])
    if int(fields[_THREADS]) > 1:
        threads |= _threads(pid)
    return Process(pid, threads, _mappings(pid))


def _threads(pid: int) -> dict[int, bytes]:
    try:
        tids = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return {}
    names = {int(tid): _maybe(f"/proc/{pid}/task/{tid}/comm").rstrip(b"\n") for tid in tids}
    return {tid: name for tid, name in names.items() if name}


def _kernel_text() -> int:
    """The address of _text, which stands near the top of /proc/kallsyms."""
    try:
        with open("/proc/kallsyms", "rb") as file:
            for _ in range(20_000):
                line = file.readline().split()
                if len(line) < 3:
                    return 0
                if line[2] == b"_text":
                    return int(line[0], 16)
    except OSError:
        pass
    return 0


def _modules() -> list[Module]:
    found = []
    for line in _maybe("/proc/modules").decode().splitlines():
        words = line.split()
        address = int(words[5], 16)
        if address:
            found.append(Module(words[0], address, int(words[1])))
    return found


def _cpu() -> tuple[str, str]:
    """(description, id) of the first CPU, as perf writes them."""
    fields: dict[str, str] = {}
    for line in _maybe("/proc/cpuinfo").decode(errors="replace").split("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        fields[key.strip()] = value.strip()
    description = fields.get("model name") or fields.get("CPU part") or platform.machine()
    words = [fields.get(key, "0") for key in ("vendor_id", "cpu family", "model", "stepping")]
    return description, ",".join(words) if "vendor_id" in fields else description


def _count(name: str) -> int:
    from perfkeep.kernel import cpus

    return len(cpus.online() if name == "online" else cpus.possible())


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def scan(of: Iterable[int] | None = None) -> Host:
    """This machine and every process on it, in a few milliseconds; or only some processes."""
    description, cpu_id = _cpu()
    memory = re.search(rb"MemTotal:\s+(\d+)", _maybe("/proc/meminfo"))
    found = map(process, pids() if of is None else of)
    names = os.uname()
    return Host(
        hostname=names.nodename,
        release=names.release,
        machine=names.machine,
        cpus_online=_count("online"),
        cpus_possible=_count("possible"),
        cpu_description=description,
        cpu_id=cpu_id,
        memory_kib=int(memory.group(1)) if memory else 0,
        kernel_text=_kernel_text(),
        kernel_notes=_maybe("/sys/kernel/notes"),
        modules=_modules(),
        monotonic_ns=time.clock_gettime_ns(time.CLOCK_MONOTONIC),
        realtime_ns=time.clock_gettime_ns(time.CLOCK_REALTIME),
        processes=[one for one in found if one is not None],
        boot_id=_maybe("/proc/sys/kernel/random/boot_id").decode().strip(),
    )
