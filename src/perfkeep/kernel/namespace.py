"""A mount namespace of one's own."""

from __future__ import annotations

import ctypes
import os

from perfkeep.kernel.syscalls import mount

_CLONE_NEWNS = 0x00020000
_MS_SLAVE, _MS_REC = 1 << 19, 1 << 14

_libc = ctypes.CDLL(None, use_errno=True)


def unshare_mounts() -> None:
    """From here on nobody else sees what this process and its children mount; what others mount
    is still seen here.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN.
    """
    if _libc.unshare(_CLONE_NEWNS):
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")
    mount("none", "/", "none", _MS_REC | _MS_SLAVE)
