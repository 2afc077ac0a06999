"""Events that died: with their CPU, or with both daemons. Who opens them again, and how they join.

The kernel kills the events of a CPU that goes offline for good, while their ring stays, and events
opened later may write into it. The broker opens nothing itself: it sends an opener, a process with
the owner's rights, which asks what is missing and lets it rejoin.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import msgspec

from perfkeep.abi.perf_event import Attr, Ioctl, ReadFormat
from perfkeep.broker.joining import Undo, join
from perfkeep.broker.leaving import bury_dead
from perfkeep.broker.log import say
from perfkeep.broker.recordings import Recordings
from perfkeep.broker.registry import Event, KindOfEvent, Recording
from perfkeep.broker.remembered import remember_before
from perfkeep.broker.spill import spill_files
from perfkeep.errors import BrokerError, PerfkeepError, Unreachable
from perfkeep.kernel import cpus, perf_fd
from perfkeep.kernel.fd import OwnedFd
from perfkeep.wire import messages
from perfkeep.wire.messages import Counts, Gap, Slot
from perfkeep.wire.socket import Peer
from perfkeep.wire.structs import MOST_GAPS

_RESTARTED = "broker and keeper died at the same moment"
_WAITS = "its events are being opened again"


class Absence:
    """What is missing from recordings.

    Args:
        send: starts an opener for a recording.
        tell: a line for the audit log: what happened, to which recording, why.
    """

    def __init__(
        self,
        recordings: Recordings,
        send: Callable[[Recording], None],
        tell: Callable[[str, str, str], None],
    ) -> None:
        self.recordings = recordings
        self.send = send
        self.tell = tell
        #: Recordings with an opener on its way, by id, and the CPUs that died since it left: what
        #: it opened there may be dead as well.
        self.sent: dict[int, set[int]] = {}
        #: Recordings whose CPUs changed while their opener was on its way, by id.
        self._changed: set[int] = set()

    # --- both daemons died ----------------------------------------------------------------------

    def restore(self, stored: Mapping[bytes, OwnedFd]) -> None:
        """Take up what the state directory knows and the keeper does not.

        Args:
            stored: events by the keys that the keeper had them under, which a third holder kept.
        """
        registry = self.recordings.registry
        for next_id, recording in self.recordings.state.load():
            registry.next_id = max(registry.next_id, next_id)
            if registry.named(recording.name) is not None:
                continue
            recording.problem = _WAITS
            seen = max(recording.created_ns, *(gap.until_ns or 0 for gap in recording.gaps), 0)
            why = _RESTARTED
            if recording.spill is not None:
                why += f"; what was before: perfkeep recover {recording.spill.directory} --list"
            gap = Gap(seen, None, why)
            recording.gaps = [*(one for one in recording.gaps if one.until_ns), gap]
            recording.offline = []
            self.recordings.take_up(recording)
            self.tell("restore", recording.name, _RESTARTED)
            self._take_stored(recording, stored)

    def _take_stored(self, recording: Recording, stored: Mapping[bytes, OwnedFd]) -> None:
        """Events that have gone on counting are given new rings; what is missing is opened again."""
        events = []
        for key, fd in stored.items():
            if not key.startswith(recording.prefix + b"e/"):
                continue
            id, cpu, kernel_id = (int(word) for word in key.split(b"/")[2:5])
            alive = id in recording.kinds and perf_fd.check(fd.fileno()) == kernel_id
            if alive and cpu in cpus.online():
                events.append((Slot(id, cpu), fd, kernel_id))
        if not events:
            return
        try:
            self._rejoin(recording, events)
        except OSError as error:
            say(f"{recording.name}: {error}")
        else:
            self.done(recording, recording.id, "")

    # --- CPUs that come and go ------------------------------------------------------------------

    def look(self, went: Iterable[int] = ()) -> None:
        """Compare what is recorded with the CPUs that there are; `went`: those that have been
        offline, and may be back."""
        for recording in list(self.recordings.registry):
            self._look_at(recording, went)

    def _look_at(self, recording: Recording, went: Iterable[int]) -> None:
        self._note_offline(recording, {*cpus.possible().difference(cpus.online()), *went})
        missing = self.missing(recording)
        if not missing.cpus and not missing.sideband_cpus:
            return
        if recording.id in self.sent:
            self.sent[recording.id].update(went)
            self._changed.add(recording.id)
            return
        self.sent[recording.id] = set()
        try:
            self.send(recording)
        except OSError as error:
            self.done(recording, recording.id, str(error))

    def _note_offline(self, recording: Recording, dead: set[int]) -> None:
        gone = dead.intersection(event.cpu for event in recording.events())
        gone.difference_update(recording.offline)
        if not gone:
            return
        recording.offline = sorted({*recording.offline, *gone})
        now = time.time_ns()
        for cpu in sorted(gone):
            why = f"CPU {cpu} went offline"
            recording.gaps = [*recording.gaps, Gap(now, None, why, [cpu])]
            self.tell("offline", recording.name, why)
        self._remember(recording)

    def missing(self, recording: Recording) -> messages.Missing:
        """What an opener should open. No CPUs: nothing."""
        online = set(cpus.online())
        wanted = online if recording.every_cpu else online.intersection(recording.cpus)
        there = {event.cpu for event in recording.events()} - set(recording.offline)
        kinds = {kind.id: kind.kind for kind in recording.kinds.values()}
        kind, sideband = recording.sideband_kind, recording.sideband
        told = sideband.cpus - set(recording.offline) if sideband is not None else set()
        lost_files = recording.spill is not None and not recording.spill_files
        return messages.Missing(
            recording.name,
            recording.target,
            kinds,
            sorted(wanted - there),
            recording.ring.bytes_per_cpu,
            recording.spill.directory if recording.spill and lost_files else None,
            kind,
            sorted(wanted - told) if kind is not None else [],
        )

    # --- coming back ----------------------------------------------------------------------------

    def rejoin(self, recording: Recording, request: messages.Rejoin, fds: list[OwnedFd]) -> None:
        """Let what an opener opened take its place.

        Raises:
            BrokerError: EINVAL: these are not the events that were asked for.
            OSError: what the kernel or the keeper said; nothing has changed.
        """
        try:
            if request.spills and recording.spill is not None and not recording.spill_files:
                on = self.missing(recording).cpus
                owner = Peer(os.getpid(), os.geteuid(), os.getegid())
                files = spill_files(owner, fds, on, recording.ring.bytes_per_cpu)
                fds = fds[: -len(files)]
                self.recordings.take_files(recording, files)
            self._rejoin(recording, self._check(recording, request.slots, fds))
        except Unreachable:
            # No fault of the opener's: with the next keeper another one is sent.
            self.sent.pop(recording.id, None)
            raise

    def _rejoin(self, recording: Recording, events: list[tuple[Slot, OwnedFd, int]]) -> None:
        returned = sorted({slot.cpu for slot, _, _ in events})
        with Undo() as undo:
            for slot, fd, kernel_id in events:
                self._join(recording, slot, fd, kernel_id, undo)
            if recording.enabled:
                for _, fd, _ in events:
                    fcntl.ioctl(fd.fileno(), Ioctl.ENABLE, 0)
        for cpu in returned:
            if cpu in recording.offline:
                self._bury_dead(recording, cpu, {kernel_id for _, _, kernel_id in events})
        self._close_gaps(recording, returned)
        recording.offline = [cpu for cpu in recording.offline if cpu not in returned]
        recording.cpus = sorted({*recording.cpus, *returned})
        if returned:
            self.tell("rejoin", recording.name, f"CPUs {cpus.format_list(returned)}")
        self._remember(recording)
        self.recordings.show(recording)

    def done(self, recording: Recording | None, id: int, problem: str) -> None:
        """An opener has ended; `problem` says what it could not open."""
        self.sent.pop(id, None)
        if recording is not None and recording.problem != problem:
            recording.problem = problem
            if problem:
                say(f"{recording.name}: {problem}")
            self._remember(recording)
        # Only at this recording: what its opener leaves missing is no change for the others. Looking
        # at all of them would have two whose task has ended send openers for each other for ever.
        changed = id in self._changed
        self._changed.discard(id)
        if changed and recording is not None:
            self._look_at(recording, ())

    def _check(
        self, recording: Recording, slots: list[Slot], fds: list[OwnedFd]
    ) -> list[tuple[Slot, OwnedFd, int]]:
        if len(slots) != len(fds):
            raise BrokerError(errno.EINVAL, f"{len(slots)} slots and {len(fds)} fds")
        missing, died = set(self.missing(recording).cpus), self.sent.get(recording.id, set())
        found = []
        for slot, fd in zip(slots, fds, strict=True):
            kernel_id = perf_fd.check(fd.fileno())
            if slot.kind not in recording.kinds or slot.cpu not in missing:
                raise BrokerError(
                    errno.EINVAL, f"nobody misses event {slot.kind} on CPU {slot.cpu}"
                )
            if slot.cpu not in died:
                found.append((slot, fd, kernel_id))
        return found

    def _join(
        self, recording: Recording, slot: Slot, fd: OwnedFd, kernel_id: int, undo: Undo
    ) -> None:
        kind = recording.kinds[slot.kind]
        keeper, registry = self.recordings.keeper, self.recordings.registry
        event = join(keeper, registry, recording, kind, slot.cpu, fd, kernel_id, undo)
        registry.add_event(recording, kind, event)
        undo.push(partial(registry.forget_event, kind, event))

    def _bury_dead(self, recording: Recording, cpu: int, alive: set[int]) -> None:
        """Of events that others have replaced keep what they counted, and their ids."""
        for kind in recording.kinds.values():
            read_format = Attr.unpack(kind.kind.attr).read_format
            for event in [one for one in kind.events if one.cpu == cpu]:
                if event.kernel_id not in alive:
                    _add_counts(kind, event, read_format)
                    bury_dead(
                        self.recordings.keeper, self.recordings.registry, recording, kind, event
                    )
                    self.recordings.graves.append(event)
            remember_before(self.recordings.keeper, recording, kind)

    def _close_gaps(self, recording: Recording, returned: list[int]) -> None:
        now = time.time_ns()
        recording.gaps = [
            msgspec.structs.replace(gap, until_ns=now)
            if gap.until_ns is None
            and returned
            and (gap.cpus is None or set(gap.cpus) & set(returned))
            else gap
            for gap in recording.gaps
        ][-MOST_GAPS:]

    def _remember(self, recording: Recording) -> None:
        """Nobody waits for an answer here. A keeper that has died has a successor in a moment, which
        is told everything.
        """
        try:
            self.recordings.remember(recording)
        except PerfkeepError as error:
            say(f"{recording.name}: {error}")


def _add_counts(kind: KindOfEvent, event: Event, read_format: ReadFormat) -> None:
    got = perf_fd.read(event.fd.fileno(), read_format)
    old = kind.before.get(event.cpu) or Counts(event.cpu, 0, 0, 0, 0)
    kind.before[event.cpu] = Counts(
        event.cpu,
        old.value + got.value,
        old.time_enabled_ns + got.time_enabled_ns,
        old.time_running_ns + got.time_running_ns,
        old.lost + got.lost,
    )
