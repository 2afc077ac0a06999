"""Where clients knock: the instance's socket and its lock, which may both be deleted."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress

from perfkeep.broker.service import Service
from perfkeep.errors import Unreachable
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.inotify import watch_deletions
from perfkeep.wire import instance
from perfkeep.wire.instance import Instance


class Door:
    """The listening socket under its name, and the lock that says who serves it.

    Args:
        lock: of the instance, taken.
        say: a line for the log.
        renewed: called when the lock's file was deleted and another one is held now.
    """

    def __init__(
        self,
        where: Instance,
        lock: OwnedFd,
        service: Service,
        say: Callable[[str], None],
        renewed: Callable[[], None],
    ) -> None:
        self.where = where
        self.lock = lock
        self.service = service
        self.say = say
        self.renewed = renewed
        self.keeper_pid = 0
        self.mode = 0o600
        #: A socket that listens under the name already: systemd's.
        self.given: socket.socket | None = None
        self.listener: socket.socket | None = None
        self._inode = 0
        self._watch: OwnedFd | None = None

    def open(self) -> None:
        """Listen under the socket's name, whatever lies there; write who we are into the lock."""
        listener, self.given = self.given, None
        if listener is None:
            listener = self._bind()
        else:
            os.chmod(self.where.socket, self.mode)
        self._inode = os.lstat(self.where.socket).st_ino
        if self.listener is not None:
            self.service.selector.unregister(self.listener)
            self.listener.close()
        self.listener = listener
        self.service.listen(listener)
        self.name_us(self.keeper_pid)
        self._watch_directory()

    def _bind(self) -> socket.socket:
        aside = self.where.socket + ".new"
        instance.check_is_socket(self.where.socket)
        instance.check_is_socket(aside)
        listener = socket.socket(socket.AF_UNIX)
        with suppress(FileNotFoundError):
            os.unlink(aside)
        listener.bind(aside)
        os.chmod(aside, self.mode)
        listener.listen(128)
        os.rename(aside, self.where.socket)
        return listener

    def let_in(self, mode: int) -> None:
        """Who may connect: 0600, or 0666 while there is something for others."""
        self.mode = mode
        if self._is_ours():
            os.chmod(self.where.socket, mode)

    def unlink(self) -> None:
        """Take our socket away; what someone else put in its place stays."""
        if self._is_ours():
            with suppress(OSError):
                os.unlink(self.where.socket)

    def _is_ours(self) -> bool:
        with suppress(OSError):
            return os.lstat(self.where.socket).st_ino == self._inode
        return False

    def name_us(self, keeper_pid: int) -> None:
        """Write broker and keeper into the lock: from here on this keeper is in charge."""
        self.keeper_pid = keeper_pid
        text = f"broker {os.getpid()}\nkeeper {keeper_pid}\n".encode()
        os.pwrite(self.lock.fileno(), text, 0)
        os.ftruncate(self.lock.fileno(), len(text))

    # --- it may be deleted ----------------------------------------------------------------------

    def _watch_directory(self) -> None:
        if self._watch is not None:
            self.service.selector.unregister(self._watch)
            self._watch.close()
        try:
            self._watch = watch_deletions(self.where.directory)
        except OSError as error:
            self.say(f"a deleted socket will not be noticed: {error}")
            self._watch = None
            return
        self.service.selector.register(self._watch, selectors.EVENT_READ, self._look)

    def _look(self) -> None:
        """Something in our directory was deleted: if it was ours, put it back."""
        assert self._watch is not None
        with suppress(BlockingIOError):
            os.read(self._watch.fileno(), 65536)
        if os.path.exists(self.where.socket) and os.path.exists(self.where.lock):
            return
        self.say("the socket was deleted; it is made again")
        try:
            instance.prepare_directory(self.where)
            if not os.path.exists(self.where.lock):
                self._renew_lock()
            self.open()
        except OSError as error:
            self.say(f"the socket cannot be made again: {error}")

    def _renew_lock(self) -> None:
        """The lock's file was deleted as well: hold the new one too, and let the keeper."""
        lock = instance.take_lock(self.where)
        if lock is None:
            raise Unreachable("another instance has taken the socket's place")
        # In place, so that the numbers which others know stay true.
        os.dup2(lock.fileno(), self.lock.fileno(), inheritable=False)
        lock.close()
        self.renewed()
