"""An fd that somebody owns.

Every fd that perfkeep receives or opens is put into an OwnedFd on the next line. The holder
forgets the number when it closes, so a reused number is never closed twice.
"""

from __future__ import annotations

import _thread
import os
from collections import deque
from typing import Final


class OwnedFd:
    """One open file descriptor, closed exactly once: by `close`, by `with`, or at the latest
    when it is collected.

    Args:
        number: an open fd; ownership passes to this object.
    """

    __slots__ = ("_number",)
    _CLOSED: Final = -1

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        """The number, for system calls.

        Raises:
            ValueError: the fd was closed or released before.
        """
        if self._number == self._CLOSED:
            raise ValueError("this fd was closed before; open it again to use it")
        return self._number

    @property
    def closed(self) -> bool:
        return self._number == self._CLOSED

    def release(self) -> int:
        """Hand the number over to someone else; this object forgets it."""
        number = self.fileno()
        self._number = self._CLOSED
        return number

    def dup(self) -> OwnedFd:
        """Another fd for the same open file (close-on-exec)."""
        return OwnedFd(os.dup(self.fileno()))

    def close(self) -> None:
        number, self._number = self._number, self._CLOSED
        if number != self._CLOSED:
            os.close(number)

    def __enter__(self) -> OwnedFd:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A half-made object (an exception in __init__ of a subclass) has no number.
        if getattr(self, "_number", self._CLOSED) != self._CLOSED:
            self.close()

    def __repr__(self) -> str:
        return "OwnedFd(closed)" if self.closed else f"OwnedFd({self._number})"


class ForeignFd(OwnedFd):
    """An fd that somebody else sent, and that may be anything.

    Closing one can take as long as its file system likes, for ever if that is a FUSE daemon of an
    enemy's. So it is closed in a thread, unless it is known to be one that closes at once.
    """

    __slots__ = ()

    def close(self) -> None:
        if self.closed:
            return
        number = self.release()
        try:
            harmless = os.readlink(f"/proc/self/fd/{number}") == "anon_inode:[perf_event]"
        except OSError:
            harmless = False
        if harmless:
            os.close(number)
        else:
            _close_later(number)


#: Fds that wait to be closed. More than a few wait only for who lets us wait.
pending: deque[int] = deque()
_closing = _thread.allocate_lock()


def _close_later(number: int) -> None:
    pending.append(number)
    try:
        _thread.start_new_thread(_close_pending, ())
    except RuntimeError:
        _close_pending()  # no thread to be had


def _close_pending() -> None:
    if not _closing.acquire(False):
        return  # somebody is at it, and looks again
    try:
        while pending:
            os.close(pending[0])
            pending.popleft()
    finally:
        _closing.release()
    if pending:
        _close_pending()
