"""One function per method of the interface: parameters in, result and fds out."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Protocol

import msgspec

import perfkeep
from perfkeep.broker import quotas
from perfkeep.broker.absence import Absence
from perfkeep.broker.audit import Audit
from perfkeep.broker.collect import over
from perfkeep.broker.connection import Connection
from perfkeep.broker.permission import Level, find, sees
from perfkeep.broker.reach import check_reachable
from perfkeep.broker.recordings import Recordings
from perfkeep.broker.redacting import Redactor, check_physical, needs_redacting
from perfkeep.broker.registry import Recording
from perfkeep.broker.rings import MappedRing
from perfkeep.errors import BrokerError
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.memfd import is_sealed
from perfkeep.wire import messages
from perfkeep.wire.instance import Instance
from perfkeep.wire.messages import (
    GUEST_STAGED,
    INTERFACE,
    MAX_STAGED,
    METHODS,
    SERVICE_METHODS,
    VARLINK_SERVICE,
    Nothing,
)

Answer = tuple[msgspec.Struct, list[OwnedFd]]

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class House(Protocol):
    """What the interface asks of the process that serves it."""

    where: Instance
    audit: Audit
    keeper_pid: int
    sandbox: str
    redactor: str
    problems: list[str]

    def upgrade(self, request: messages.Upgrade) -> None: ...


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


class Methods:
    """The interface, served from one set of recordings.

    Args:
        house: what only the process itself knows or can do.
    """

    def __init__(self, recordings: Recordings, absence: Absence, house: House) -> None:
        self.recordings = recordings
        self.absence = absence
        self.views = recordings.views
        self.house = house
        self._table: dict[str, Callable[[Connection, msgspec.Struct], Answer]] = {
            name: getattr(self, name) for name in METHODS | SERVICE_METHODS
        }

    def call(self, connection: Connection, name: str, parameters: msgspec.Struct) -> Answer:
        what = getattr(parameters, "name", None) or getattr(parameters, "id", "-")
        try:
            answer = self._table[name](connection, parameters)
        except OSError as error:
            self.house.audit.note(connection.peer, name, what, error.errno or errno.EIO)
            raise
        self.house.audit.note(connection.peer, name, getattr(answer[0], "name", what))
        return answer

    def GetStatus(self, connection: Connection, _: Nothing) -> Answer:
        house, registry = self.house, self.recordings.registry
        uids = {one.owner.uid for one in registry if sees(connection.peer, one)}
        recordings, events, ring_bytes = quotas.used(registry, None)
        status = messages.Status(
            house.where.socket,
            house.where.log,
            perfkeep.__version__,
            recordings,
            events,
            ring_bytes,
            process_status(os.getpid()),
            process_status(house.keeper_pid),
            house.where.state,
            self.recordings.state.bytes,
            sum(job.bytes for job in self.recordings.spiller.jobs.values()),
            _size(house.where.log) + _size(house.where.audit),
            [quotas.usage(registry, uid, self.recordings.policy) for uid in sorted(uids)],
            house.sandbox,
            [*house.problems, *self.recordings.state.problems.values()],
            sum(len(recording.kinds) for recording in registry),
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
        most = GUEST_STAGED if connection.is_guest else MAX_STAGED
        if len(connection.staged) > most:
            raise BrokerError(errno.EMFILE, f"no more than {most} fds may be staged")
        return messages.Staged(len(connection.staged)), []

    def Start(self, connection: Connection, request: messages.Start) -> Answer:
        check_reachable(self.house.where, request.access)
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

    def SetAccess(self, connection: Connection, request: messages.SetAccess) -> Answer:
        check_reachable(self.house.where, request.access)
        self.recordings.set_access(connection.peer, request.name, request.access)
        return Nothing(), []

    def Expire(self, connection: Connection, request: messages.Expire) -> Answer:
        self.recordings.expire(connection.peer, request.name, request.ttl_ns)
        return Nothing(), []

    def Collect(self, connection: Connection, request: messages.Collect) -> Answer:
        """What is over by policy, of what this peer owns."""
        found = list(over(self.recordings, self.views, connection.peer))
        for recording, _ in found:
            if not request.dry_run:
                self.recordings.end(recording)
        return messages.Collected([messages.Over(one.name, why) for one, why in found]), []

    def Upgrade(self, connection: Connection, request: messages.Upgrade) -> Answer:
        if connection.peer.uid not in (0, os.geteuid()):
            raise BrokerError(errno.EACCES, "only root and the owner of an instance may upgrade it")
        self.house.upgrade(request)
        return Nothing(), []

    def GetMissing(self, connection: Connection, _: Nothing) -> Answer:
        return self.absence.missing(self._opened_for(connection)), []

    def Rejoin(self, connection: Connection, request: messages.Rejoin) -> Answer:
        fds = _staged(connection)
        recording = self._opened_for(connection)
        self.absence.rejoin(recording, request, fds)
        self.absence.done(recording, recording.id, request.problem)
        return Nothing(), []

    def _opened_for(self, connection: Connection) -> Recording:
        """Raises: BrokerError: EACCES: no opener of ours · ENOENT: it was claimed meanwhile."""
        if not connection.opens_for:
            raise BrokerError(errno.EACCES, "only an opener that the broker sent may do that")
        return self.recordings.registry.kind(connection.opens_for)[0]

    def AddSideband(self, connection: Connection, request: messages.AddSideband) -> Answer:
        recording = self._mine(connection, request.name)
        self.recordings.add_sideband(recording, request, _staged(connection))
        return Nothing(), []

    def AddProcesses(self, connection: Connection, request: messages.Named) -> Answer:
        """The staged fd is a file of records, of what ran before the sideband came."""
        fds, recording = _staged(connection), self._mine(connection, request.name)
        if len(fds) != 1 or recording.sideband is None:
            raise BrokerError(errno.EINVAL, "one file, for a recording with a sideband")
        if not is_sealed(fds[0]):
            raise BrokerError(errno.EINVAL, "what ran before is told in a sealed memfd")
        recording.sideband.scan(self.recordings.keeper, fds[0])
        return Nothing(), []

    def _mine(self, connection: Connection, name: str) -> Recording:
        if connection.opens_for:
            return self._opened_for(connection)
        return find(self.recordings.registry, connection.peer, name, Level.OWN, "add to")

    def Reopen(self, connection: Connection, request: messages.ById) -> Answer:
        return self.views.reopen(connection.peer, request.id, request.cpu)

    def BeginSnapshot(self, connection: Connection, named: messages.Named) -> Answer:
        answer, connection.rings = self.views.begin_snapshot(connection.peer, named.name)
        connection.expect_copies()
        if connection.redactor is not None:
            connection.redactor.close()
            connection.redactor = None
        owns = connection.peer.uid in (0, answer.recording.owner.uid)
        redacts = not owns and needs_redacting(answer)
        if redacts:
            check_physical(answer)
            connection.redactor = Redactor(self.house.redactor, answer.kinds)
        recording = self.recordings.registry.named(named.name)
        sideband = recording.sideband if recording is not None else None
        if sideband is None:
            return answer, []
        sideband.read(self.recordings.keeper)
        fd, size = sideband.copy(kernel=not redacts)
        told = messages.Told(sideband.event(), size, sideband.complete)
        return msgspec.structs.replace(answer, sideband=told), [fd]

    def CopyRing(self, connection: Connection, request: messages.CopyRing) -> Answer:
        """Runs in a thread: the copy of a large ring must not hold up other clients."""
        ring = snapshot_ring(connection, request.index)
        copy = ring.copy()
        if connection.redactor is not None:
            copy = connection.redactor.redact(copy, ring.backward, ring.bytes)
        return messages.RingCopied(
            ring.cpu, copy.bytes, copy.head_before, copy.head_after, copy.unread
        ), [copy.fd]

    def GetInfo(self, connection: Connection, _: Nothing) -> Answer:
        interfaces = [VARLINK_SERVICE, INTERFACE]
        return messages.Info("perfkeep", "perfkeep", perfkeep.__version__, "", interfaces), []

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
    with open(f"/proc/{pid}/statm", "rb") as file:
        rss = int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The command may hold spaces and brackets; the fields begin after the last one.
        fields = file.read().rpartition(b")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return messages.ProcessStatus(pid, rss, ticks * 1000 // _TICKS_PER_S)
