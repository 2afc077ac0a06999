"""A file that appears whole or not at all: written aside, then given its name."""

from __future__ import annotations

import errno
import os
import tempfile
from types import TracebackType
from typing import BinaryIO

from perfkeep.errors import PerfkeepError


class AsideFile:
    """Write to `file` inside a `with`; at its end the file gets its name, on an error none.

    Args:
        path: where it shall appear, mode 0600.
        clobber: whether a file of that name may be replaced.

    Raises:
        PerfkeepError: EEXIST; or the directory's errno, in words.
    """

    def __init__(self, path: str, clobber: bool = True) -> None:
        self.clobber = clobber
        self._name = ""
        if not clobber and os.path.lexists(path):
            raise _exists(path)
        # Through a symbolic link: what it points to is replaced, not the link.
        self.path = path = os.path.realpath(path)
        self._directory = os.path.dirname(path)
        if os.path.isdir(path):
            raise PerfkeepError(errno.EISDIR, f"{path} is a directory", hint="name a file in it")
        if os.path.exists(path) and not os.path.isfile(path):
            raise PerfkeepError(errno.EINVAL, f"{path} is no file, and would be replaced by one")
        try:
            self.file: BinaryIO = self._open()
        except OSError as error:
            number = error.errno or errno.EIO
            raise PerfkeepError(
                number, f"{path} cannot be written: {os.strerror(number)}"
            ) from error

    def _open(self) -> BinaryIO:
        number, self._name = tempfile.mkstemp(prefix=".perfkeep-", dir=self._directory)
        return os.fdopen(number, "w+b")

    def _publish(self) -> None:
        self.file.flush()
        if self.clobber:
            os.replace(self._name, self.path)
            self._name = ""
            return
        try:
            os.link(self._name, self.path)  # unlike rename(2), it fails when the name is taken
        except FileExistsError as error:
            raise _exists(self.path) from error

    def __enter__(self) -> BinaryIO:
        return self.file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._publish()
        except OSError as failed:
            raise self._in_words(failed) from failed
        finally:
            self._drop()
        if isinstance(error, OSError) and not isinstance(error, PerfkeepError):
            raise self._in_words(error) from error

    def _drop(self) -> None:
        try:
            self.file.close()
        except OSError:
            pass  # buffered bytes that the disk did not take; the error is on its way already
        if self._name:
            os.unlink(self._name)
            self._name = ""

    def _in_words(self, error: OSError) -> OSError:
        if isinstance(error, PerfkeepError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return error
        free = os.statvfs(self._directory).f_bavail * os.statvfs(self._directory).f_frsize
        return PerfkeepError(
            error.errno,
            f"{self.path}: the disk is full ({free >> 20} MiB are free); nothing was written",
            hint="name a file on another disk with -o",
        )


def _exists(path: str) -> PerfkeepError:
    return PerfkeepError(
        errno.EEXIST, f"{path} exists already, and --no-clobber leaves it as it is"
    )
