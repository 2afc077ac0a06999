"""UNCLAIM, asked of the broker like any client does."""

from __future__ import annotations

from perfkeep.abi.perf_event import Attr
from perfkeep.client.event import PerfEvent
from perfkeep.client.opening import kind_of
from perfkeep.events.naming import event_of
from perfkeep.interposer.table import Opened
from perfkeep.kernel.fd import OwnedFd


def unclaim(fd: OwnedFd, opened: Opened) -> int:
    """Make the event persistent, under its number; gives that.

    Raises:
        BrokerError: ENOENT · EEXIST · EBUSY, as the contract names them.
    """
    attr = Attr.unpack(opened.attr)
    kind = kind_of(event_of(attr, opened.path), attr)
    with PerfEvent(fd.dup(), kind, opened.cpu) as event:
        return event.unclaim()
