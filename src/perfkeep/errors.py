"""Exceptions by whose fault it is, each carrying the errno that the contract names.

Only exceptions live here; nothing in this file talks to the kernel or to a person.
`str(error)` says what failed and why, `error.hint` what to do about it, and `error.errno` is what
a program tests.
"""

from __future__ import annotations

import errno as _errno


class PerfkeepError(OSError):
    """Base of everything that perfkeep raises on purpose.

    Args:
        errno: the number from <errno.h> that the contract names for this failure.
        message: one sentence: what failed and why, with the numbers in it.
        hint: one command or one sentence that cures it on this machine, for this user; empty
            where no cure is known.
    """

    def __init__(self, errno: int, message: str, *, hint: str = "") -> None:
        super().__init__(errno, message)
        self.hint = hint

    @property
    def hint(self) -> str:
        """The cure; a traceback shows it below the message."""
        return self._hint

    @hint.setter
    def hint(self, text: str) -> None:
        self._hint = text
        self.__notes__ = [f"hint: {text}"] if text else []

    def __str__(self) -> str:
        return str(self.strerror)


class UsageError(PerfkeepError):
    """The caller asked for something that makes no sense: a bad spec, size or name."""

    def __init__(self, message: str, errno: int = _errno.EINVAL, *, hint: str = "") -> None:
        super().__init__(errno, message, hint=hint)


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
        *,
        hint: str = "",
    ) -> None:
        super().__init__(message, errno, hint=hint)
        self.part = part
        self.suggestions = suggestions


class KernelRefused(PerfkeepError):
    """The kernel said no; the message names the setting or limit behind it."""


class BrokerError(PerfkeepError):
    """The broker answered with an error: unknown name, name in use, not allowed."""


class Unreachable(PerfkeepError):
    """The broker could not be started, or went away in the middle of a request."""

    def __init__(self, message: str, errno: int = _errno.ECONNREFUSED, *, hint: str = "") -> None:
        super().__init__(errno, message, hint=hint)


class DataError(PerfkeepError):
    """Bytes that are not what they should be: a truncated file, a broken record chain.

    Attributes:
        offset: byte offset of the first byte that makes no sense.
    """

    def __init__(
        self, message: str, offset: int, errno: int = _errno.EBADMSG, *, hint: str = ""
    ) -> None:
        super().__init__(errno, message, hint=hint)
        self.offset = offset


class Note(str):
    """A sentence on what was done otherwise than asked.

    Attributes:
        hint: one command or one sentence that cures it; empty where no cure is known.
    """

    hint: str = ""

    @classmethod
    def of(cls, error: OSError, what: str) -> Note:
        """`what` failed with an error, whose hint the note has."""
        note = cls(f"{what}: {error.strerror or error}")
        note.hint = getattr(error, "hint", "")
        return note
