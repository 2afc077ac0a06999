"""One function per method of the interface: parameters in, result and fds out."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import msgspec

from perfkeep.broker.connection import Connection
from perfkeep.broker.recordings import Recordings
from perfkeep.broker.rings import MappedRing
from perfkeep.broker.views import Views
from perfkeep.errors import BrokerError
from perfkeep.kernel.fd import OwnedFd
from perfkeep.wire import messages
from perfkeep.wire.messages import (
    INTERFACE,
    MAX_STAGED,
    METHODS,
    SERVICE_METHODS,
    VARLINK_SERVICE,
    Nothing,
)

Answer = tuple[msgspec.Struct, list[OwnedFd]]

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Methods:
    """The interface, served from one set of recordings.

    Args:
        about: socket path, log path, version and the keeper's pid, for GetStatus.
    """

    def __init__(self, recordings: Recordings, about: Callable[[], messages.About]) -> None:
        self.recordings = recordings
        self.views = Views(recordings.registry)
        self.about = about
        self._table: dict[str, Callable[[Connection, msgspec.Struct], Answer]] = {
            name: getattr(self, name) for name in METHODS | SERVICE_METHODS
        }

    def call(self, connection: Connection, name: str, parameters: msgspec.Struct) -> Answer:
        return self._table[name](connection, parameters)

    def GetStatus(self, connection: Connection, _: Nothing) -> Answer:
        about = self.about()
        registry = self.recordings.registry
        ring_bytes = sum(ring.bytes for one in registry for ring in one.rings.values())
        status = messages.Status(
            about.socket,
            about.log,
            about.version,
            len(registry),
            registry.events,
            ring_bytes,
            process_status(os.getpid()),
            process_status(about.keeper_pid),
        )
        return status, []

    def List(self, connection: Connection, _: Nothing) -> Answer:
        return self.views.visible(connection.peer), []

    def Show(self, connection: Connection, named: messages.Named) -> Answer:
        return self.views.show(connection.peer, named.name), []

    def ShowEvent(self, connection: Connection, request: messages.EventId) -> Answer:
        return self.views.show_event(connection.peer, request.id), []

    def Stat(self, connection: Connection, named: messages.Named) -> Answer:
        return self.views.stat(connection.peer, named.name), []

    def Stage(self, connection: Connection, _: Nothing) -> Answer:
        """The fds that came with this call wait for the Start or Add that uses them."""
        if len(connection.staged) > MAX_STAGED:
            raise BrokerError(errno.EMFILE, f"no more than {MAX_STAGED} fds may be staged")
        return messages.Staged(len(connection.staged)), []

    def Start(self, connection: Connection, request: messages.Start) -> Answer:
        return self.recordings.start(connection.peer, request, _staged(connection)), []

    def Add(self, connection: Connection, request: messages.Add) -> Answer:
        return self.recordings.add(connection.peer, request, _staged(connection)), []

    def Remove(self, connection: Connection, request: messages.Remove) -> Answer:
        self.recordings.remove(connection.peer, request.name, request.events)
        return Nothing(), []

    def Enable(self, connection: Connection, named: messages.Named) -> Answer:
        self.recordings.switch(connection.peer, named.name, True)
        return Nothing(), []

    def Disable(self, connection: Connection, named: messages.Named) -> Answer:
        self.recordings.switch(connection.peer, named.name, False)
        return Nothing(), []

    def Claim(self, connection: Connection, named: messages.Named) -> Answer:
        self.recordings.claim(connection.peer, named.name)
        return Nothing(), []

    def ClaimEvent(self, connection: Connection, _: Nothing) -> Answer:
        """The event is named by its fd, which comes with this call."""
        fds = _staged(connection)
        if len(fds) != 1:
            raise BrokerError(errno.EINVAL, f"one event is claimed by one fd, not by {len(fds)}")
        self.recordings.claim_event(connection.peer, fds[0])
        return Nothing(), []

    def Reopen(self, connection: Connection, request: messages.ById) -> Answer:
        return self.views.reopen(connection.peer, request.id, request.cpu)

    def BeginSnapshot(self, connection: Connection, named: messages.Named) -> Answer:
        answer, connection.rings = self.views.begin_snapshot(connection.peer, named.name)
        return answer, []

    def CopyRing(self, connection: Connection, request: messages.CopyRing) -> Answer:
        """Runs in a thread: the copy of a large ring must not hold up other clients."""
        ring = snapshot_ring(connection, request.index)
        copy = ring.copy()
        return messages.RingCopied(ring.cpu, copy.bytes, copy.head_before, copy.head_after), [
            copy.fd
        ]

    def GetInfo(self, connection: Connection, _: Nothing) -> Answer:
        interfaces = [VARLINK_SERVICE, INTERFACE]
        return messages.Info("perfkeep", "perfkeep", self.about().version, "", interfaces), []

    def GetInterfaceDescription(
        self, connection: Connection, request: messages.InterfaceName
    ) -> Answer:
        if request.interface != INTERFACE:
            raise BrokerError(errno.ENOENT, f"there is no interface {request.interface!r}")
        from perfkeep.wire.describe import describe  # few ask

        return messages.Description(describe()), []


def snapshot_ring(connection: Connection, index: int) -> MappedRing:
    if index >= len(connection.rings):
        raise BrokerError(
            errno.EINVAL, f"the snapshot has {len(connection.rings)} rings, there is no {index}"
        )
    return connection.rings[index]


def _staged(connection: Connection) -> list[OwnedFd]:
    """The staged fds change hands: whoever fails with them closes them."""
    fds, connection.staged = connection.staged, []
    return fds


def process_status(pid: int) -> messages.ProcessStatus:
    """Resident memory and CPU time of a process, from /proc/PID."""
    with open(f"/proc/{pid}/statm") as file:
        rss = int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    with open(f"/proc/{pid}/stat") as file:
        # The command may hold spaces and brackets; the fields begin after the last one.
        fields = file.read().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return messages.ProcessStatus(pid, rss, ticks * 1000 // _TICKS_PER_S)
