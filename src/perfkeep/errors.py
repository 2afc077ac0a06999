"""Exceptions by whose fault it is, each carrying the errno that the contract names.

Only exceptions live here; nothing in this file talks to the kernel or to a person.
`str(error)` is one sentence that a person can act on; `error.errno` is what a program tests.
"""

from __future__ import annotations

import errno as _errno


class PerfkeepError(OSError):
    """Base of everything that perfkeep raises on purpose.

    Args:
        errno: the number from <errno.h> that the contract names for this failure.
        message: one sentence with the numbers in it, and what to do next.
    """

    def __init__(self, errno: int, message: str) -> None:
        super().__init__(errno, message)

    def __str__(self) -> str:
        return str(self.strerror)


class UsageError(PerfkeepError):
    """The caller asked for something that makes no sense: a bad spec, size or name."""

    def __init__(self, message: str, errno: int = _errno.EINVAL) -> None:
        super().__init__(errno, message)


class SpecError(UsageError):
    """An event spec that cannot be understood.

    Attributes:
        part: the piece of the spec that is wrong, as it was typed.
        suggestions: names close to `part` that would be accepted, best first.
    """

    def __init__(
        self,
        message: str,
        part: str,
        suggestions: tuple[str, ...] = (),
        errno: int = _errno.EINVAL,
    ) -> None:
        super().__init__(message, errno)
        self.part = part
        self.suggestions = suggestions


class KernelRefused(PerfkeepError):
    """The kernel said no; the message names the setting or limit behind it."""


class BrokerError(PerfkeepError):
    """The broker answered with an error: unknown name, name in use, not allowed."""


class Unreachable(PerfkeepError):
    """The broker could not be started, or went away in the middle of a request."""

    def __init__(self, message: str, errno: int = _errno.ECONNREFUSED) -> None:
        super().__init__(errno, message)


class DataError(PerfkeepError):
    """Bytes that are not what they should be: a truncated file, a broken record chain.

    Attributes:
        offset: byte offset of the first byte that makes no sense.
    """

    def __init__(self, message: str, offset: int, errno: int = _errno.EBADMSG) -> None:
        super().__init__(errno, message)
        self.offset = offset
