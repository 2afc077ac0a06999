"""Makes the files of a crash copy, with the caller's own rights; the broker only writes to them.

The file "meta" is locked by flock(2). The lock belongs to the open file, which keeper and broker hold
as long as the recording is spilled, so it is gone when the recording or both of them have ended.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress

from perfkeep.errors import PerfkeepError
from perfkeep.kernel.fd import OwnedFd
from perfkeep.wire import spill

_FILES = ("meta", "told", "ring.")
_BEFORE = "before-"
#: So many crash copies of earlier recordings are left.
KEPT_ASIDE = 3


def prepare(
    directory: str, cpus: Sequence[int], ring_bytes: int, description: int
) -> list[OwnedFd]:
    """Make the directory and the files in it, with all the space that they will ever need.

    What an earlier recording spilled there is put aside as before-1, before-2, …, and of these the
    newest KEPT_ASIDE are left.

    Args:
        description: bytes of what there is to say of the recording.

    Returns:
        The files' fds: meta, told, then one for each CPU in the order given.

    Raises:
        PerfkeepError: EPERM others may write to the directory; EBUSY a recording is spilled there;
            ENOSPC, EACCES, … in words.
    """
    try:
        with suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        with OwnedFd(os.open(directory, flags)) as folder:
            _check(folder, directory)
            fcntl.flock(folder.fileno(), fcntl.LOCK_EX)  # of two at once the second waits
            _check_unused(folder, directory)
            _put_aside(folder)
            sizes = {
                "meta": spill.meta_file_bytes(description),
                "told": spill.told_file_bytes(len(cpus)),
            }
            sizes |= {f"ring.{cpu}": spill.ring_file_bytes(ring_bytes) for cpu in cpus}
            files = _make(folder, sizes)
            fcntl.flock(files[0].fileno(), fcntl.LOCK_EX)
            return files
    except PerfkeepError:
        raise
    except OSError as error:
        number = error.errno or errno.EIO
        if os.path.islink(directory):
            raise PerfkeepError(
                number,
                f"the rings cannot be spilled to {directory}: it is a symbolic link, and what it "
                "points to may change",
                hint=f"name the directory itself: {os.path.realpath(directory)}",
            ) from error
        raise PerfkeepError(
            number,
            f"the rings cannot be spilled to {directory}: {os.strerror(number)}",
            hint="name a directory that you can write to, with room for all rings twice",
        ) from error


def _check(folder: OwnedFd, directory: str) -> None:
    found = os.fstat(folder.fileno())
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise PerfkeepError(
            errno.EPERM,
            f"others can change what is in {directory}, so rings are not spilled there",
            hint="name a directory of your own",
        )


def _check_unused(folder: OwnedFd, directory: str) -> None:
    """Raises: PerfkeepError: EBUSY: the files there are those of a recording that goes on."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    with (
        suppress(FileNotFoundError),
        OwnedFd(os.open("meta", flags, dir_fd=folder.fileno())) as meta,
    ):
        try:
            fcntl.flock(meta.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PerfkeepError(
                errno.EBUSY,
                f"another recording is spilled to {directory}",
                hint="name a directory for each recording",
            ) from error


def _put_aside(folder: OwnedFd) -> None:
    at = folder.fileno()
    names = [name for name in os.listdir(at) if name.startswith(_FILES)]
    if not names:
        return
    before = [name for name in os.listdir(at) if name.startswith(_BEFORE)]
    taken = [int(number) for name in before if (number := name[len(_BEFORE) :]).isdecimal()]
    aside = f"{_BEFORE}{max(taken, default=0) + 1}"
    os.mkdir(aside, 0o700, dir_fd=at)
    for name in names:
        os.rename(name, f"{aside}/{name}", src_dir_fd=at, dst_dir_fd=at)
    for old in sorted(taken)[: max(0, len(taken) + 1 - KEPT_ASIDE)]:
        _delete(at, f"{_BEFORE}{old}")


def _delete(at: int, aside: str) -> None:
    """Delete one that was put aside; whatever else lies in it stays, and the folder with it."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(OSError), OwnedFd(os.open(aside, flags, dir_fd=at)) as folder:
        for name in os.listdir(folder.fileno()):
            if name.startswith(_FILES):
                os.unlink(name, dir_fd=folder.fileno())
        os.rmdir(aside, dir_fd=at)


def _make(folder: OwnedFd, sizes: dict[str, int]) -> list[OwnedFd]:
    made: dict[str, OwnedFd] = {}
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        for name, size in sizes.items():
            made[name] = OwnedFd(os.open(name, flags, 0o600, dir_fd=folder.fileno()))
            os.posix_fallocate(made[name].fileno(), 0, size)
        os.fsync(folder.fileno())
    except BaseException:
        for name, fd in made.items():
            fd.close()
            with suppress(OSError):
                os.unlink(name, dir_fd=folder.fileno())
        raise
    return list(made.values())


def undo(directory: str, fds: Iterable[OwnedFd]) -> None:
    """The recording was refused: away with its files. What was put aside stays aside."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(OSError), OwnedFd(os.open(directory, flags)) as folder:
        for fd in fds:
            for name in os.listdir(folder.fileno()):
                path = f"/proc/self/fd/{folder.fileno()}/{name}"
                if name.startswith(_FILES) and os.path.samestat(
                    os.stat(path), os.fstat(fd.fileno())
                ):
                    os.unlink(name, dir_fd=folder.fileno())
    for fd in fds:
        fd.close()
