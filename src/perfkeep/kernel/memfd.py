"""Files in memory that nobody can change once they are there."""

from __future__ import annotations

import fcntl
import os

from perfkeep.kernel.fd import OwnedFd

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed(name: str, data: bytes) -> OwnedFd:
    """A memfd with these bytes.

    Raises:
        OSError: EMFILE, or ENOMEM when there is no memory for it.
    """
    fd = OwnedFd(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd.fileno(), rest) :]
        fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        fd.close()
        raise
    return fd


def is_sealed(fd: OwnedFd) -> bool:
    """Whether it is such a file: it can be read without waiting for anybody, and stays as it is."""
    try:
        return fcntl.fcntl(fd.fileno(), fcntl.F_GET_SEALS) & SEALS == SEALS
    except OSError:  # EINVAL from what can have no seals
        return False
