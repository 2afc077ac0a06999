"""inotify(7): be told that files of one directory were deleted or moved away."""

from __future__ import annotations

import ctypes
import os

from perfkeep.kernel.fd import OwnedFd

# <sys/inotify.h>
_IN_MOVED_FROM, _IN_DELETE, _IN_DELETE_SELF, _IN_MOVE_SELF = 0x40, 0x200, 0x400, 0x800

_libc = ctypes.CDLL(None, use_errno=True)


def watch_deletions(directory: str) -> OwnedFd:
    """An fd that becomes readable when the directory, or something in it, goes away.

    Raises:
        OSError: ENOSPC: fs.inotify.max_user_watches is reached.
    """
    fd = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1 failed")
    owned = OwnedFd(fd)
    mask = _IN_MOVED_FROM | _IN_DELETE | _IN_DELETE_SELF | _IN_MOVE_SELF
    if _libc.inotify_add_watch(fd, directory.encode(), mask) < 0:
        error = ctypes.get_errno()
        owned.close()
        raise OSError(error, f"{directory} cannot be watched: {os.strerror(error)}")
    return owned
