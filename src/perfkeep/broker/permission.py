"""Who may do what with a recording. Pure.

The owner and root may everything, nobody else anything.
"""

from __future__ import annotations

import errno

from perfkeep.errors import BrokerError


def check(peer_uid: int, owner_uid: int, name: str, verb: str) -> None:
    """Raises: BrokerError: EACCES naming the owner."""
    if peer_uid not in (0, owner_uid):
        raise BrokerError(
            errno.EACCES,
            f"uid {peer_uid} may not {verb} {name!r}: it belongs to uid {owner_uid}",
        )
