"""Test if other users can reach an instance's socket at all: a mode that shares a recording with
callers who cannot get to the broker would promise what does not hold.

Looks at modes only. An access control list counts as the group's bits, as in stat(2).
"""

from __future__ import annotations

import errno
import os

from perfkeep.errors import BrokerError
from perfkeep.wire.instance import Instance, closed_directory
from perfkeep.wire.messages import Access

_PRIVATE = "/run/user/"


def check_reachable(where: Instance, wanted: Access) -> None:
    """Raises: BrokerError: EPERM: shared with users who cannot pass through a directory above the
    socket."""
    given_away = wanted.uid not in (None, 0, os.geteuid())
    if not given_away and not (wanted.mode or 0) & 0o066:
        return
    closed = closed_directory(where.socket)
    if closed is None:
        return
    directory, mode = closed
    hint = f"chmod o+x {directory}"
    if f"{directory}/".startswith(_PRIVATE):
        hint = "only root's instance can be shared: have root start the recording"
    raise BrokerError(
        errno.EPERM,
        f"no other user can reach this instance: {where.socket} lies in {directory}, which has "
        f"mode {mode:04o}",
        hint=hint,
    )
