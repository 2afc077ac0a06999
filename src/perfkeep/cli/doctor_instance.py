"""What `perfkeep doctor` says of the instance: what it has been told, and whether it can be had."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from perfkeep.cli.finding import Finding, read

if TYPE_CHECKING:
    from perfkeep.wire.instance import Instance


def state() -> Finding:
    """Whether recordings can come back after both daemons died."""
    from perfkeep.wire import instance

    where, what = instance.current().state, "state directory"
    folder = where
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("fail", what, f"{where} cannot be written to by you",
                       "name another one with PERFKEEP_STATE")  # fmt: skip
    left = os.statvfs(folder)
    if left.f_bavail * left.f_frsize < 1 << 20:
        return Finding("warn", what, f"{where} is full", "make room there")
    return Finding("ok", what, where)


def policy() -> Finding:
    """As the broker will read it."""
    from perfkeep.broker import policy as rules

    path = rules.path()
    if not os.path.exists(path):
        return Finding("ok", "policy", f"no {path}: nobody gets more than the kernel gives them")
    try:
        found = rules.load(path)
    except OSError as error:
        hint = getattr(error, "hint", "") or f"mend {path}, see perfkeep-policy(5)"
        return Finding("fail", "policy", str(error), hint)
    shares = "owners may share" if found.share else "only root may share"
    return Finding("ok", "policy", f"{path}: {shares}")


def definitions() -> Finding:
    """As `perfkeep load` will read them; opens no event."""
    from perfkeep.client import definitions as files

    what, problems, names = "definitions", list[files.Problem](), list[str]()
    for path in files.find():
        try:
            found = files.read(path, obeyed=True)
        except files.DefinitionError as error:
            problems += error.problems
        else:
            names += [one.name for one in found]
            problems += files.absent(found)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return Finding("fail", what, f"{problems[0]}{more}", "perfkeep check shows every mistake")
    return Finding("ok", what, ", ".join(names) or f"none in {files.directory()}")


def boot() -> Finding:
    """Whether what is defined is started at boot."""
    from perfkeep.client import definitions as files

    what, unit = "at boot", "perfkeep-recordings.service"
    if not os.path.isdir("/run/systemd/system"):
        return Finding("ok", what, "systemd does not run here, so nothing starts at boot; an init script "
                       "can run perfkeep daemon --foreground")  # fmt: skip
    if not any(os.path.exists(f"{folder}/{unit}") for folder in _UNITS):
        found, cure = f"{unit} is not installed", "perfkeep-recordings(5) says how to install it"
    elif not os.path.exists(f"/etc/systemd/system/sysinit.target.wants/{unit}"):
        found, cure = f"{unit} is not enabled", f"sudo systemctl enable --now {unit}"
    else:
        return Finding("ok", what, f"{unit} starts what is defined")
    if files.find():
        return Finding("warn", what, f"{found}: what is defined does not start", cure)
    return Finding("ok", what, f"{found}, and nothing is defined")


#: Where systemd looks for units, by systemd.unit(5).
_UNITS = tuple(
    f"{top}/systemd/system"
    for top in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib", "/run/systemd/generator")
)


def running() -> Finding:
    """Looks, and starts nothing."""
    import socket

    from perfkeep.wire import instance

    where = instance.current()
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(where.socket)
        except OSError:
            return _no_instance(where)
    pids = " ".join(read(where.lock).split())
    return Finding("ok", "instance", f"answers at {where.socket} ({pids})")


def _no_instance(where: Instance) -> Finding:
    try:
        if not stat.S_ISSOCK(os.lstat(where.socket).st_mode):
            return Finding("fail", "instance", f"{where.socket} is there, and no socket",
                           "name another one with PERFKEEP_SOCKET")  # fmt: skip
    except FileNotFoundError:
        pass
    # The last folder of the path is made by the first command, those above are not.
    folder = where.directory if os.path.isdir(where.directory) else os.path.dirname(where.directory)
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("fail", "instance", f"{folder} cannot be written to by you",
                       "name a socket elsewhere with PERFKEEP_SOCKET")  # fmt: skip
    return Finding("ok", "instance", f"none at {where.socket}; the first command starts it")
