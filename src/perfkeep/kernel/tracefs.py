"""tracefs: where it is, and what it says about tracepoints; mounts it when it must.

Gives the kernel's own text. What the fields of a tracepoint are is read in `records`.
"""

from __future__ import annotations

import errno
import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from perfkeep.errors import KernelRefused
from perfkeep.kernel import privileges

#: Where tracefs usually is; it is mounted at the first when it is nowhere.
PLACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")


class Tracepoint(NamedTuple):
    """One tracepoint.

    `id` is what attr.config names; `format` is the text of the event's `format` file.
    """

    system: str
    name: str
    id: int
    format: str


def root() -> Path:
    """The mounted tracefs. Mounts it when it is nowhere, and leaves it mounted.

    Raises:
        KernelRefused: EACCES it may not be read · EPERM, ENODEV it cannot be mounted; the
            message has the command that would help.
    """
    for place in (*PLACES, *_mounted()):
        try:
            os.stat(f"{place}/events")
            return Path(place)
        except PermissionError as error:
            # The other usual place is below debugfs, which only root may look into, whether
            # tracefs is there or not: that says nothing.
            if place == PLACES[0]:
                raise _unreadable(place) from error
        except OSError:
            continue
    return _mount()


def _mounted() -> list[str]:
    with open("/proc/self/mounts") as file:
        mounts = [line.split() for line in file]
    return [fields[1] for fields in mounts if fields[2] == "tracefs"]


def _mount() -> Path:
    from perfkeep.kernel.syscalls import mount  # it loads ctypes

    place = PLACES[0]
    try:
        mount("nodev", place, "tracefs")
    except OSError as error:
        number = error.errno or errno.EIO
        # EBUSY: someone else has mounted it this very moment.
        if number != errno.EBUSY:
            raise KernelRefused(
                number,
                "tracepoints need tracefs, which is not mounted, and mounting it failed "
                f"({errno.errorcode.get(number, number)}: {os.strerror(number)})",
                hint=privileges.as_root("mount", "-t", "tracefs", "nodev", place),
            ) from error
    return Path(place)


def _unreadable(place: str | Path) -> KernelRefused:
    # The files are 0440 since Linux 5.16 (49d67e445742), so mode=755 is no cure, a group is.
    return KernelRefused(
        errno.EACCES,
        f"tracepoints are described below {place}, which this user may not read",
        hint=privileges.as_root("mount", "-o", f"remount,gid={os.getgid()},mode=750", str(place)),
    )


def _read(place: Path, *names: str) -> bytes:
    try:
        return place.joinpath(*names).read_bytes()
    except PermissionError as error:
        raise _unreadable(place) from error


def _folders(path: Path) -> list[str]:
    """The names of the folders in a folder, sorted; none when there is no such folder."""
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def systems() -> list[str]:
    """The tracepoint systems: "block", "sched", …"""
    return _folders(root() / "events")


def names(system_glob: str = "*", name_glob: str = "*") -> list[tuple[str, str]]:
    """(system, name) of the tracepoints that match, sorted; nothing is read of them."""
    events = root() / "events"
    return [
        (system, name)
        for system in _folders(events)
        if fnmatchcase(system, system_glob)
        for name in _folders(events / system)
        if fnmatchcase(name, name_glob) and (events / system / name / "id").exists()
    ]


def tracepoint(system: str, name: str) -> Tracepoint:
    """One tracepoint by its exact name.

    Raises:
        FileNotFoundError: there is none of that name.
        KernelRefused: EACCES.
    """
    return _load(root(), system, name)


def by_id(id: int) -> Tracepoint:
    """One tracepoint by what attr.config names.

    Every tracepoint's number must be read to find it (20 ms for 2,000), so they are remembered;
    those that a module brings later are found by looking again.

    Raises:
        FileNotFoundError: there is none with that id.
        KernelRefused: EACCES.
    """
    place = root()
    if id not in _by_id:
        for system, name in names():
            try:
                _by_id[int(_read(place, "events", system, name, "id"))] = (system, name)
            except FileNotFoundError:
                continue
    if id not in _by_id:
        raise FileNotFoundError(errno.ENOENT, "there is no tracepoint with this id", str(id))
    return _load(place, *_by_id[id])


_by_id: dict[int, tuple[str, str]] = {}


def tracepoints(system_glob: str, name_glob: str) -> list[Tracepoint]:
    """Every tracepoint that matches two globs, sorted by name.

    Raises:
        KernelRefused: EACCES.
    """
    place = root()
    return [_load(place, system, name) for system, name in names(system_glob, name_glob)]


def _load(place: Path, system: str, name: str) -> Tracepoint:
    missing = FileNotFoundError(errno.ENOENT, "there is no such tracepoint", f"{system}:{name}")
    if any(part in ("", ".", "..") or "/" in part for part in (system, name)):
        raise missing
    try:
        number = int(_read(place, "events", system, name, "id"))
    except OSError as error:
        # "sched:filter" names a file, and a folder is looked for in it.
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise missing from None
        raise
    text = _read(place, "events", system, name, "format").decode(errors="replace")
    return Tracepoint(system, name, number, text)


def header_page() -> bytes:
    """`events/header_page`: the layout of a page of the ftrace ring, which perf.data carries."""
    return _read(root(), "events", "header_page")


def header_event() -> bytes:
    """`events/header_event`: the layout of an ftrace record's head, which perf.data carries."""
    return _read(root(), "events", "header_event")


def printk_formats() -> bytes:
    """`printk_formats`: address and text of the format strings that bprint events point at."""
    return _read(root(), "printk_formats")
