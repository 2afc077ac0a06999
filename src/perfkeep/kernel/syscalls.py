"""System calls that Python's standard library lacks.

A wrapper is: call, test, raise OSError with the kernel's errno. What an errno means for a
person is said elsewhere (`kernel.refusal`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform

from perfkeep.abi.perf_event import Attr, Ioctl, OpenFlag
from perfkeep.kernel.fd import OwnedFd

# <asm/unistd_64.h>, <asm-generic/unistd.h>
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_PIDFD_GETFD = 438  # on every architecture since Linux 5.6 (8649c322f75c)

_libc = ctypes.CDLL(None, use_errno=True)


def _oserror(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def perf_event_open(
    attr: Attr | bytes,
    pid: int,
    cpu: int,
    group_fd: int = -1,
    flags: OpenFlag = OpenFlag.FD_CLOEXEC,
) -> OwnedFd:
    """perf_event_open(2): one event on one CPU.

    Args:
        attr: the attribute, or its bytes.
        pid: thread id; -1 for every task; with PID_CGROUP an fd of the cgroup's directory.
        cpu: CPU number, or -1 for every CPU that the task runs on.
        group_fd: the group leader's fd, or -1.

    Raises:
        OSError: the kernel's errno.
    """
    number = _PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        raise OSError(
            errno.ENOSYS,
            f"perf_event_open is not known on {platform.machine()}: x86_64 and aarch64 are",
        )
    data = attr if isinstance(attr, bytes) else attr.pack()
    buffer = ctypes.create_string_buffer(data, len(data))
    fd = _libc.syscall(number, buffer, pid, cpu, group_fd, int(flags | OpenFlag.FD_CLOEXEC))
    if fd < 0:
        raise _oserror("perf_event_open")
    return OwnedFd(fd)


def pidfd_getfd(pidfd: int, fd: int) -> OwnedFd:
    """pidfd_getfd(2): a duplicate of another process's fd.

    Args:
        pidfd: of the process, from os.pidfd_open.
        fd: its number there.

    Raises:
        OSError: EPERM without the right to attach to it with ptrace, EBADF when there is no such
            fd, ESRCH when the process has ended.
    """
    copy = _libc.syscall(_PIDFD_GETFD, pidfd, fd, 0)
    if copy < 0:
        raise _oserror("pidfd_getfd")
    return OwnedFd(copy)


def detach_output(fd: int) -> None:
    """PERF_EVENT_IOC_SET_OUTPUT with -1: the event has no ring any more.

    Not by fcntl.ioctl: its argument is an int, and the kernel wants all 64 bits of -1.

    Raises:
        OSError: EINVAL: the event is mapped itself (redirected events could be before 6.17).
    """
    if _libc.ioctl(fd, ctypes.c_ulong(Ioctl.SET_OUTPUT), ctypes.c_long(-1)):
        raise _oserror("PERF_EVENT_IOC_SET_OUTPUT")


def mount(source: str, target: str, filesystem: str, flags: int = 0, options: str = "") -> None:
    """mount(2)

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN, ENODEV when the kernel lacks the filesystem.
    """
    if _libc.mount(source.encode(), target.encode(), filesystem.encode(), flags, options.encode()):
        raise _oserror(f"mount {filesystem} on {target}")


_MNT_FORCE, _MNT_DETACH = 1, 2


def umount(target: str, force: bool = False) -> None:
    """umount2(2); `force` though it is busy, and what waits for the file system fails."""
    if _libc.umount2(target.encode(), _MNT_FORCE | _MNT_DETACH if force else 0):
        raise _oserror(f"umount {target}")
