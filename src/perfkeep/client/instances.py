"""Every instance on the machine that this user can reach; none is started by looking."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from perfkeep.client.connection import Connection, try_connect
from perfkeep.wire import instance, messages
from perfkeep.wire.instance import Instance
from perfkeep.wire.messages import RecordingInfo

#: Nobody's instance may hold up who only looks.
_PATIENCE_S = 2.0


def sockets() -> list[str]:
    """Where instances are by custom, and the one that PERFKEEP_SOCKET names."""
    users = glob.glob("/run/user/*/perfkeep/perfkeep.sock") + glob.glob(
        "/tmp/perfkeep-*/perfkeep.sock"
    )
    found = [instance.SYSTEM, instance.of_user(), instance.current().socket, *sorted(users)]
    return list(dict.fromkeys(found))


def others_too() -> Iterator[tuple[str, RecordingInfo]]:
    """The recordings that this user may see, each with its instance's socket."""
    for path in sockets():
        try:
            # Whoever pretends to be an instance in /tmp shall at least not be talked to by root.
            owner = os.lstat(os.path.dirname(path)).st_uid
            if os.stat(path).st_uid != owner or (owner not in (0, os.geteuid()) and _in_tmp(path)):
                continue
            sock = try_connect(path)
        except OSError:
            continue
        if sock is None:
            continue
        sock.settimeout(_PATIENCE_S)
        try:
            with Connection(Instance(path), sock) as connection:
                listed, _ = connection.call("List", messages.Nothing(), messages.Recordings)
        except OSError:
            continue  # it ended meanwhile, or does not answer
        for info in listed.recordings:
            yield path, info


def in_system(name: str | None = None) -> list[RecordingInfo]:
    """The recordings of root's instance that this user may see, or the one of that name; none
    where it does not answer. It is not waited for."""
    try:
        sock = try_connect(instance.SYSTEM)
        if sock is None:
            return []
        sock.settimeout(_PATIENCE_S)
        with Connection(Instance(instance.SYSTEM), sock) as connection:
            listed, _ = connection.call("List", messages.Nothing(), messages.Recordings)
    except OSError:
        return []
    return [info for info in listed.recordings if name in (None, info.name)]


def hint_of_system(name: str | None) -> str:
    """A hint for a user whose own instance has no recording of that name: root's has it."""
    if os.geteuid() == 0 or name is None or not in_system(name):
        return ""
    return f"root's instance has {name!r}: add --system (in Python: system=True)"


def _in_tmp(path: str) -> bool:
    return path.startswith("/tmp/")
