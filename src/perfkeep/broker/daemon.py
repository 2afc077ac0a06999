"""Becoming a broker: detach, lock, keeper, socket; and ending in good order."""

from __future__ import annotations

import errno
import os
import resource
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress

import perfkeep
from perfkeep.broker import policy
from perfkeep.broker.absence import Absence
from perfkeep.broker.audit import Audit
from perfkeep.broker.collect import expired
from perfkeep.broker.door import Door
from perfkeep.broker.link import KeeperLink, StoringLink, key_of
from perfkeep.broker.log import Trimmer, say
from perfkeep.broker.methods import Methods
from perfkeep.broker.recordings import Recordings
from perfkeep.broker.recovery import hand_over, recover
from perfkeep.broker.registry import Recording, Registry
from perfkeep.broker.remembered import UEVENTS
from perfkeep.broker.rings import unmapped
from perfkeep.broker.service import Service
from perfkeep.broker.state import State
from perfkeep.broker.sysfs import SysfsView
from perfkeep.errors import BrokerError, Unreachable
from perfkeep.kernel import sandbox, sysctl
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.spawn import spawn
from perfkeep.kernel.systemd import Notifier, given
from perfkeep.wire import messages, packets
from perfkeep.wire.instance import Instance

#: With no recording and no client for this long, the instance ends: nothing is lost by it.
LINGER_S = 5.0

_PACKAGE = os.path.dirname(os.path.abspath(perfkeep.__file__))
_ROOMS = ("broker", "keeper", "opener", "redactor")
#: After both daemons died, the first command waits this long for the recordings to come back.
_RESTORE_S = 10.0
#: And before another broker takes over, requests have this long to be answered.
_FINISH_S = 5.0


def _main(package: str, room: str) -> str:
    return os.path.join(package, room, "__main__.py")


def raise_fd_limit() -> None:
    """As many fds as may be had: each event takes one here and one in the keeper."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        most = int(sysctl.read("fs.nr_open"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # root may
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Daemon:
    """One broker.

    Args:
        where: the instance.
        lock: its lock, taken.
        link: to the keeper that started us, or None: start one.
        stays: whether it goes on with nothing to do, as a service does.
    """

    def __init__(
        self, where: Instance, lock: OwnedFd, link: socket.socket | None, stays: bool = False
    ) -> None:
        self.where = where
        self.lock = lock
        self.keeper_pid = os.getppid()
        #: No broker and no keeper before us: whatever there was has died with them.
        self.first = link is None
        self.stays = stays
        self.manager = Notifier()
        self.given = given()
        self.ended = False
        self.reload = False
        self.successor: messages.Upgrade | None = None
        #: Failures despite which this process goes on, a sentence each.
        self.problems: list[str] = []
        self.audit = Audit(where.audit)
        self.trimmer = Trimmer(where.log)
        self.redactor = _main(_PACKAGE, "redactor")
        # Before the keeper starts, which is born inside.
        self.sandbox = str(sandbox.enter([where.directory, where.state]))
        say(self.sandbox)
        self.recordings = Recordings(
            self._link(link or self._start_keeper()),
            SysfsView(where.devices),
            State(where.state),
            self._policy(policy.Policy(policy.path())),
        )
        self.absence = Absence(self.recordings, self._send_opener, self.audit.happened)
        methods = Methods(self.recordings, self.absence, self)
        self.service = Service(methods, LINGER_S, self._let_in, self._opener_left)
        self.door = Door(where, lock, self.service, say, self._lock_was_renewed)
        self.door.keeper_pid = self.keeper_pid
        self.uevents: socket.socket | None = None

    def _link(self, sock: socket.socket) -> KeeperLink:
        pid = self.keeper_pid
        return StoringLink(sock, pid, self.manager) if self.manager else KeeperLink(sock, pid)

    def _policy(self, before: policy.Policy) -> policy.Policy:
        """The administrator's policy; the one before while there is a mistake in it."""
        self.problems = [one for one in self.problems if not one.startswith(before.path)]
        try:
            return policy.load(before.path)
        except OSError as error:
            say(str(error))
            self.problems.append(str(error))
            return before

    def _start_keeper(self, python: str = sys.executable, package: str = _PACKAGE) -> socket.socket:
        ours, theirs = packets.link_pair()
        lock, link = self.lock.fileno(), theirs.fileno()
        with theirs:
            broker = ["-I", _main(package, "broker"), self.where.socket, "--lock", str(lock)]
            keeper = ["-I", "-S", _main(package, "keeper"), self.where.socket]
            command = [*keeper, "--lock", str(lock), "--link", str(link), "--", *broker]
            self.keeper_pid = spawn(command, (lock, link), python=python)
        return ours

    def run(self, ready: OwnedFd | None) -> None:
        """Serve until told to end, or until nobody needs us."""
        signal.set_wakeup_fd(self.service.wake_fd, warn_on_full_buffer=False)
        unmapped.wake_fd = self.service.wake_fd
        for number, flag in (("SIGTERM", "ended"), ("SIGINT", "ended"), ("SIGHUP", "reload")):
            signal.signal(signal.Signals[number], lambda *_, flag=flag: setattr(self, flag, True))
        held = recover(self.recordings.keeper, self.recordings.registry)
        self._watch_keeper()
        self._watch_cpus(held)
        self._watch_sidebands()
        if self.first:
            self.absence.restore(self._take_given())
        else:
            self.recordings.state.follow(self.recordings.registry)
        self._look_at_cpus()
        until = time.monotonic() + _RESTORE_S
        while self.absence.sent and time.monotonic() < until:
            self.service.step(0.1)
        self.recordings.schedule()
        self._let_in()
        self._show_in_sysfs(self.recordings.registry)
        for recording in self.recordings.registry:
            self.recordings.spill(recording)
        self.door.open()
        say(f"serving {self.where.socket}, {len(self.recordings.registry)} recordings")
        with suppress(OSError):  # a keeper of an older version does not know what that means
            self.recordings.keeper.serves()
        self.manager.ready(f"{len(self.recordings.registry)} recordings")
        if ready is not None:
            os.write(ready.fileno(), b"ready")
            ready.close()
        while not self.ended:
            if not self.service.step(self._until_expiry()) and not self.stays and self._may_end():
                break
            self._upkeep()
        self._end()

    def _take_given(self) -> dict[bytes, OwnedFd]:
        """What systemd has kept for us: the socket that listens, and events by their keys."""
        events = {}
        for name, fd in self.given:
            if key_of(name):
                events[key_of(name)] = fd
                continue
            sock = socket.socket(fileno=fd.release())
            if sock.family == socket.AF_UNIX and sock.getsockname() == self.where.socket:
                self.door.given = sock
            else:
                sock.close()
        self.given = []
        return events

    # --- what happens without being asked for -----------------------------------------------------

    def _until_expiry(self) -> float | None:
        """Seconds until the next recording expires."""
        due = self.recordings.next_expiry
        if due is None:
            return None
        return max(0.0, (due - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) / 1e9)

    def _upkeep(self) -> None:
        self.trimmer.look()
        if self.successor is not None:
            code, self.successor = self.successor, None
            self._go_on_with(code)
        if self.reload:
            self.reload = False
            self.recordings.policy = self._policy(self.recordings.policy)
            say(f"read {self.recordings.policy.path} again")
            self._let_in()
        if self.recordings.next_expiry is None or self._until_expiry():
            return
        for recording in [one for one in self.recordings.registry if expired(one)]:
            say(f"{recording.name} has expired")
            self.audit.happened("expire", recording.name, "its time to live is over")
            try:
                self.recordings.end(recording)
            except Unreachable:
                return  # the next keeper is told, and then this is tried again
        self.recordings.schedule()
        self._let_in()

    def _watch_cpus(self, held: OwnedFd | None) -> None:
        """Args: held: the socket that hears of CPUs, as the keeper had it."""
        from perfkeep.kernel.uevents import watch_cpus

        try:
            if held is not None:
                self.uevents = socket.socket(fileno=held.release())
            else:
                self.uevents = watch_cpus()
                self.recordings.keeper.put(UEVENTS, b"", self.uevents.fileno())
        except OSError as error:
            say(f"CPUs that come and go will not be noticed: {error}")
            return
        self.service.selector.register(self.uevents, selectors.EVENT_READ, self._look_at_cpus)

    def _watch_sidebands(self) -> None:
        wakeups = self.recordings.wakeups
        for recording in self.recordings.registry:
            if recording.sideband is not None:
                wakeups.watch(recording.sideband)
        self.service.selector.register(
            wakeups, selectors.EVENT_READ, self.recordings.read_sidebands
        )

    def _look_at_cpus(self) -> None:
        from perfkeep.kernel.uevents import heard

        for gone in heard(self.uevents) if self.uevents else ():
            self.absence.look(() if gone is None else (gone,))
        self.absence.look()

    def _send_opener(self, recording: Recording) -> None:
        """Start a process that opens what a recording misses, with its owner's rights."""
        uid, rights = recording.owner.uid, []
        if os.geteuid() == 0 and uid != 0:
            rights = ["--uid", str(uid), "--gid", str(recording.owner.gid)]
        elif uid != os.geteuid():
            raise PermissionError(
                f"{recording.name} belongs to uid {uid}, whom only root can act for"
            )
        ours, theirs = socket.socketpair()
        with theirs:
            link = ["--link", str(theirs.fileno())]
            spawn(
                ["-I", _main(_PACKAGE, "opener"), self.where.socket, *link, *rights],
                (theirs.fileno(),),
            )
        self.service.employ(ours, recording.id)

    def _opener_left(self, id: int, refusal: str) -> None:
        """An opener has gone; if it never reported a result, it was refused or died."""
        if id not in self.absence.sent:
            return
        recording = next((one for one in self.recordings.registry if one.id == id), None)
        reason = refusal or "the process that opens them ended before it reported a result"
        self.absence.done(recording, id, f"its events could not be opened again: {reason}")

    # --- new code -------------------------------------------------------------------------------

    def upgrade(self, request: messages.Upgrade) -> None:
        """Once the answer is on its way: see `_go_on_with`.

        Raises:
            BrokerError: EINVAL: this is not where perfkeep is.
        """
        mains = [os.path.join(request.package, room, "__main__.py") for room in _ROOMS]
        missing = [path for path in (request.python, *mains) if not os.access(path, os.R_OK)]
        if missing:
            raise BrokerError(errno.EINVAL, f"there is no {missing[0]} to go on with")
        self.successor = request

    def _go_on_with(self, code: messages.Upgrade) -> None:
        """Leave all to a keeper of the new code, which starts a broker of the new code.

        The old keeper is in charge until the lock names the new one, and whoever is in charge
        starts a broker when this one dies; so it may die at any point.
        """
        say(f"goes on with {code.package} in {code.python}")
        self._let_finish()
        old, old_pid = self.recordings.keeper, self.keeper_pid
        try:
            keeper = self._link(self._start_keeper(code.python, code.package))
            self._hand_over(keeper)
        except OSError as error:
            self.keeper_pid = old_pid
            say(f"the new code cannot be started, all stays as it is: {error}")
            return
        self.door.name_us(self.keeper_pid)
        self.audit.happened("upgrade", "-", code.package)
        self.door.unlink()
        with suppress(OSError):
            old.bye()
        os._exit(0)  # nothing may be undone: the new keeper has it all

    def _let_finish(self) -> None:
        """Whoever waits for an answer gets it, if it does not take too long."""
        until = time.monotonic() + _FINISH_S
        while self.service.working and time.monotonic() < until:
            self.service.step(0.05)

    # --- the socket -----------------------------------------------------------------------------

    def _wanted_mode(self) -> int:
        """Others may connect only while there is something for them."""
        shared = any(
            one.mode & 0o066 or one.owner.uid != os.geteuid() for one in self.recordings.registry
        )
        return 0o666 if shared or self.recordings.policy.open_to_others else 0o600

    def _let_in(self) -> None:
        mode = self._wanted_mode()
        if mode != self.door.mode:
            self.door.let_in(mode)
            self.recordings.view.let_in(others=mode == 0o666)

    def _show_in_sysfs(self, registry: Registry) -> None:
        try:
            self.recordings.view.show_all(registry)
        except OSError as error:
            say(f"the sysfs view cannot be made: {error}")

    def _lock_was_renewed(self) -> None:
        self.recordings.keeper.lock(self.lock.fileno())

    # --- the keeper may die -------------------------------------------------------------------

    def _watch_keeper(self) -> None:
        link = self.recordings.keeper.socket
        self.service.selector.register(link, selectors.EVENT_READ, self._replace_keeper)

    def _replace_keeper(self) -> None:
        say(f"keeper {self.keeper_pid} is gone; another takes over all events")
        old = self.recordings.keeper.socket
        self.service.selector.unregister(old)
        old.close()
        pause = 0.1
        while True:
            try:
                keeper = self._link(self._start_keeper())
                self._hand_over(keeper)
                self.recordings.keeper = keeper
                break
            except OSError as error:
                say(f"no keeper can be started: {error}")
                time.sleep(pause)
                pause = min(60.0, pause * 2)
        self.door.name_us(self.keeper_pid)
        self._watch_keeper()
        self._look_at_cpus()

    def _hand_over(self, keeper: KeeperLink) -> None:
        try:
            heard = self.uevents.fileno() if self.uevents else -1
            hand_over(keeper, self.recordings.registry, heard)
        except OSError:
            # One that was filled by half must not think that its broker has died.
            with suppress(OSError):
                keeper.bye()
            keeper.socket.close()
            raise

    # --- ending -------------------------------------------------------------------------------

    def _may_end(self) -> bool:
        """Nobody has come for a while. Take the socket away, then look once more."""
        self.door.unlink()
        ready = self.service.selector.select(0)
        if any(key.fileobj is self.door.listener for key, _ in ready):
            self.door.open()
            return False
        return True

    def _end(self) -> None:
        say(f"ends, with {len(self.recordings.registry)} recordings")
        self.manager.stopping()
        self.recordings.spiller.finish()
        if not self.manager:  # a service is stopped to be started again, until the next boot
            for recording in self.recordings.registry:
                self.recordings.state.forget(recording.name)
        self.door.unlink()
        self._show_in_sysfs(Registry())  # the tree stays: it may be mounted
        with suppress(OSError):
            self.recordings.keeper.bye()
