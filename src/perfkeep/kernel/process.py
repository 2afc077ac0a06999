"""Another process: its memory, its fds, and with which rights it acts.

All of it needs the right to trace the process (PTRACE_MODE_ATTACH), or the kernel says EPERM.
Whoever asks by a pid must know that the process still is the one that is meant: a thread that
waits for a seccomp notification is held in place by it.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress

from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.syscalls import pidfd_getfd

_libc = ctypes.CDLL(None, use_errno=True)

_PIDFD_OPEN = 434  # on every architecture
_PIDFD_THREAD = os.O_EXCL  # Linux 6.9


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _oserror(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def read_memory(pid: int, address: int, length: int) -> bytes:
    """process_vm_readv(2): what can be read there, from `address` on; may be shorter.

    Raises:
        OSError: EFAULT nothing is there · EPERM · ESRCH.
    """
    buffer = ctypes.create_string_buffer(length)
    ours = _Iovec(ctypes.addressof(buffer), length)
    theirs = _Iovec(address, length)
    done = _libc.process_vm_readv(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)
    if done < 0:
        raise _oserror("process_vm_readv")
    return buffer.raw[:done]


def write_memory(pid: int, address: int, data: bytes) -> None:
    """process_vm_writev(2): only where the process could write itself.

    Raises:
        OSError: EFAULT it could not · EPERM · ESRCH.
    """
    ours = _Iovec(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data))
    theirs = _Iovec(address, len(data))
    if _libc.process_vm_writev(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0) < 0:
        raise _oserror("process_vm_writev")


def read_string(pid: int, address: int, longest: int = 4096) -> bytes:
    """The bytes before the first NUL.

    Raises:
        OSError: EFAULT · ENAMETOOLONG no NUL within `longest` bytes.
    """
    # Not beyond the end of a page in one go: what lies behind may not be mapped.
    found = b""
    while len(found) < longest:
        length = min(longest - len(found), 4096 - (address + len(found)) % 4096)
        found += read_memory(pid, address + len(found), length)
        if (end := found.find(b"\0")) >= 0:
            return found[:end]
    raise OSError(errno.ENAMETOOLONG, "no NUL where a string should be")


def take_fd(thread: int, number: int) -> OwnedFd:
    """pidfd_getfd(2): our own fd for the open file that a thread has under this number.

    Raises:
        OSError: EBADF it has none · EPERM · ESRCH.
    """
    pidfd = _libc.syscall(_PIDFD_OPEN, thread, _PIDFD_THREAD)
    if pidfd < 0 and ctypes.get_errno() == errno.EINVAL:
        # Before 6.9 only a whole process can be named. Its threads share their fds, unless they
        # went out of their way not to.
        pidfd = _libc.syscall(_PIDFD_OPEN, process_of(thread), 0)
    if pidfd < 0:
        raise _oserror("pidfd_open")
    with OwnedFd(pidfd):
        return pidfd_getfd(pidfd, number)


def process_of(thread: int) -> int:
    """The process that a thread belongs to (tgid).

    Raises:
        OSError: ESRCH, ENOENT: it is gone.
    """
    return process_in(status(thread))


def process_in(status: bytes) -> int:
    """The same, of a status that was read before."""
    return int(status.partition(b"\nTgid:\t")[2].split(b"\n", 1)[0])


def status(thread: int | str) -> bytes:
    """/proc/TID/status of a thread, or of "self".

    Raises:
        OSError: ESRCH, ENOENT: it is gone.
    """
    with open(f"/proc/{thread}/status", "rb", buffering=0) as file:
        return file.read(16 << 10)


def rights(thread: int | str, status: bytes) -> tuple[bytes | str, ...]:
    """All that the kernel may look at when this thread asks for something: user and group ids,
    groups, capabilities, namespaces of users and pids, the label of a security module. Two
    threads with equal rights may do the same.

    Args:
        thread: its id, or "self".
        status: its status now.

    Raises:
        OSError: ENOENT, ESRCH: it is gone; EACCES: we may not look.
    """
    wanted = (b"Uid:", b"Gid:", b"Groups:", b"CapEff:")
    found: list[bytes | str] = [line for line in status.split(b"\n") if line.startswith(wanted)]
    found += [os.readlink(f"/proc/{thread}/ns/{kind}") for kind in ("user", "pid")]
    try:
        with open(f"/proc/{thread}/attr/current", "rb", buffering=0) as file:
            found.append(file.read(4096))
    except OSError:
        pass  # no security module that labels; then ours has none either
    return tuple(found)


def prefer_this_thread() -> None:
    """Run it before all ordinary threads, where the user may have that (CAP_SYS_NICE or
    RLIMIT_RTPRIO); its children are ordinary again."""
    with suppress(OSError):
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(1))
