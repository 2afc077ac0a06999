"""An fd that somebody owns.

Every fd that perfkeep receives or opens is put into an OwnedFd on the next line. The holder
forgets the number when it closes, so a reused number is never closed twice.
"""

from __future__ import annotations

import os
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
