"""Test if a file is the one that a process had mapped. Its name does not tell: it may have been
replaced since, or lie in a container.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from perfkeep.errors import DataError
from perfkeep.symbols.build_id import of_file

#: The kernel puts it behind the path of a file that was unlinked. A name may end so as well.
DELETED = " (deleted)"


class Identity(NamedTuple):
    """The known identity of a mapped file; all of it has to agree.

    Attributes:
        build_id: in hex; "": not known.
        inode: 0: not known.
        device: as os.makedev gives it; 0: not known.
    """

    build_id: str = ""
    inode: int = 0
    device: int = 0


#: An identity of which nothing is known.
ANY = Identity()


class OtherFile(DataError):
    """Another file than the one that was mapped has its name now."""


def locate(path: str, identity: Identity) -> str:
    """The file's path on this machine.

    Args:
        path: as the kernel has it.

    Raises:
        OtherFile: another file is there.
        OSError: none is there.
    """
    if os.path.exists(path):
        if _is(path, identity):
            return path
        raise _other(path, identity)
    # What lies where it was unlinked is another file, and may be the same build.
    replacement = path.removesuffix(DELETED)
    if replacement != path and identity.build_id and _is(replacement, identity):
        return replacement
    if replacement != path and os.path.exists(replacement):
        raise _other(replacement, identity)
    os.stat(path)  # raises
    return path


def _other(path: str, identity: Identity) -> OtherFile:
    what = "build" if identity.build_id else "file"
    return OtherFile(f"{path} is another {what} than the one that ran", 0)


def _is(path: str, identity: Identity) -> bool:
    build_id, inode, device = identity
    if build_id and (of_file(os.fsencode(path)) or b"").hex() != build_id:
        return False
    if not inode:
        return True
    found = os.stat(path)
    return found.st_ino == inode and _may_be_same(found.st_dev, device)


def _may_be_same(one: int, other: int) -> bool:
    """True if two devices may be one. overlayfs and btrfs show files on devices that are none, of
    major 0.
    """
    return not os.major(one) or not os.major(other) or one == other
