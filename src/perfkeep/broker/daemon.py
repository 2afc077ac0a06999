"""Becoming a broker: detach, lock, keeper, socket; and ending in good order."""

from __future__ import annotations

import os
import resource
import selectors
import signal
import socket
import time
from contextlib import suppress

import perfkeep
from perfkeep.broker.link import KeeperLink
from perfkeep.broker.methods import Methods
from perfkeep.broker.recordings import Recordings
from perfkeep.broker.recovery import hand_over, recover
from perfkeep.broker.registry import Registry
from perfkeep.broker.service import Service
from perfkeep.broker.sysfs import SysfsView
from perfkeep.errors import Unreachable
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.inotify import watch_deletions
from perfkeep.kernel.spawn import spawn
from perfkeep.wire import instance, messages, packets
from perfkeep.wire.instance import Instance

#: With no recording and no client for this long, the instance ends: nothing is lost by it.
LINGER_S = 5.0

_PACKAGE = os.path.dirname(os.path.abspath(perfkeep.__file__))
_BROKER = ["-I", os.path.join(_PACKAGE, "broker", "__main__.py")]
_KEEPER = ["-I", "-S", os.path.join(_PACKAGE, "keeper", "__main__.py")]


def say(text: str) -> None:
    """One line in the log."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    print(f"{stamp} perfkeep-broker[{os.getpid()}]: {text}", flush=True)


def raise_fd_limit() -> None:
    """As many fds as may be had: each event takes one here and one in the keeper."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError), open("/proc/sys/fs/nr_open") as file:
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(file.read()),) * 2)  # root may
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Daemon:
    """One broker.

    Args:
        where: the instance.
        lock: its lock, taken.
        link: to the keeper that started us, or None: start one.
    """

    def __init__(self, where: Instance, lock: OwnedFd, link: socket.socket | None) -> None:
        self.where = where
        self.lock = lock
        self.keeper_pid = os.getppid()
        self.ended = False
        self.recordings = Recordings(
            KeeperLink(link or self._start_keeper()), SysfsView(where.devices)
        )
        self.service = Service(Methods(self.recordings, self.about), LINGER_S)
        self.listener: socket.socket | None = None
        self.inode = 0
        self.watch: OwnedFd | None = None

    def about(self) -> messages.About:
        return messages.About(
            self.where.socket, self.where.log, perfkeep.__version__, self.keeper_pid
        )

    def _start_keeper(self) -> socket.socket:
        ours, theirs = packets.link_pair()
        with theirs:
            numbers = ["--lock", str(self.lock.fileno()), "--link", str(theirs.fileno())]
            broker = [*_BROKER, self.where.socket, "--lock", str(self.lock.fileno())]
            command = [*_KEEPER, self.where.socket, *numbers, "--", *broker]
            self.keeper_pid = spawn(command, (self.lock.fileno(), theirs.fileno()))
        return ours

    def run(self, ready: OwnedFd | None) -> None:
        """Serve until told to end, or until nobody needs us."""
        recover(self.recordings.keeper, self.recordings.registry)
        self._show_in_sysfs(self.recordings.registry)
        self._bind()
        self._watch_keeper()
        signal.set_wakeup_fd(self.service.wake_fd, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "ended", True))
        say(f"serving {self.where.socket}, {len(self.recordings.registry)} recordings")
        if ready is not None:
            os.write(ready.fileno(), b"ready")
            ready.close()
        while not self.ended:
            if not self.service.step() and self._may_end():
                break
        self._end()

    def _bind(self) -> None:
        """Listen under the socket's name, whatever lies there; write who we are into the lock."""
        aside = self.where.socket + ".new"
        instance.check_is_socket(self.where.socket)
        instance.check_is_socket(aside)
        listener = socket.socket(socket.AF_UNIX)
        with suppress(FileNotFoundError):
            os.unlink(aside)
        listener.bind(aside)
        os.chmod(aside, 0o600)
        listener.listen(128)
        os.rename(aside, self.where.socket)
        self.inode = os.lstat(self.where.socket).st_ino
        if self.listener is not None:
            self.service.selector.unregister(self.listener)
            self.listener.close()
        self.listener = listener
        self.service.listen(listener)
        self._write_lock()
        self._watch_socket()

    def _show_in_sysfs(self, registry: Registry) -> None:
        try:
            self.recordings.view.show_all(registry)
        except OSError as error:
            say(f"the sysfs view cannot be made: {error}")

    def _unlink_socket(self) -> None:
        """Take our socket away; what someone else put in its place stays."""
        with suppress(OSError):
            if os.lstat(self.where.socket).st_ino == self.inode:
                os.unlink(self.where.socket)

    def _write_lock(self) -> None:
        text = f"broker {os.getpid()}\nkeeper {self.keeper_pid}\n".encode()
        os.pwrite(self.lock.fileno(), text, 0)
        os.ftruncate(self.lock.fileno(), len(text))

    # --- the socket may be deleted ------------------------------------------------------------

    def _watch_socket(self) -> None:
        if self.watch is not None:
            self.service.selector.unregister(self.watch)
            self.watch.close()
        try:
            self.watch = watch_deletions(self.where.directory)
        except OSError as error:
            say(f"a deleted socket will not be noticed: {error}")
            self.watch = None
            return
        self.service.selector.register(self.watch, selectors.EVENT_READ, self._look_at_socket)

    def _look_at_socket(self) -> None:
        """Something in our directory was deleted: if it was ours, put it back."""
        assert self.watch is not None
        with suppress(BlockingIOError):
            os.read(self.watch.fileno(), 65536)
        if os.path.exists(self.where.socket) and os.path.exists(self.where.lock):
            return
        say("the socket was deleted; it is made again")
        try:
            instance.prepare_directory(self.where)
            if not os.path.exists(self.where.lock):
                self._renew_lock()
            self._bind()
        except OSError as error:
            say(f"the socket cannot be made again: {error}")

    def _renew_lock(self) -> None:
        """The lock's file was deleted as well: hold the new one too, and let the keeper."""
        lock = instance.take_lock(self.where)
        if lock is None:
            raise Unreachable("another instance has taken the socket's place")
        # In place, so that the numbers which the keeper knows stay true.
        os.dup2(lock.fileno(), self.lock.fileno(), inheritable=False)
        lock.close()

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
                keeper = KeeperLink(self._start_keeper())
                self._hand_over(keeper)
                self.recordings.keeper = keeper
                break
            except OSError as error:
                say(f"no keeper can be started: {error}")
                time.sleep(pause)
                pause = min(60.0, pause * 2)
        self._write_lock()
        self._watch_keeper()

    def _hand_over(self, keeper: KeeperLink) -> None:
        try:
            hand_over(keeper, self.recordings.registry)
        except OSError:
            # One that was filled by half must not think that its broker has died.
            with suppress(OSError):
                keeper.bye()
            keeper.socket.close()
            raise

    # --- ending -------------------------------------------------------------------------------

    def _may_end(self) -> bool:
        """Nobody has come for a while. Take the socket away, then look once more."""
        self._unlink_socket()
        ready = self.service.selector.select(0)
        if any(key.fileobj is self.listener for key, _ in ready):
            self._bind()
            return False
        return True

    def _end(self) -> None:
        say(f"ends, with {len(self.recordings.registry)} recordings")
        self._unlink_socket()
        self._show_in_sysfs(Registry())  # the tree stays: it may be mounted
        with suppress(OSError):
            self.recordings.keeper.bye()
