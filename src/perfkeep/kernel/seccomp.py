"""Seccomp user notification: a filter hands some system calls of a program to a supervisor.

The supervisor receives a call while the thread that made it waits, and answers it with a value,
an errno or an fd, or sends it on to the kernel.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from typing import NamedTuple

from perfkeep.abi import seccomp as abi
from perfkeep.abi.seccomp import AddFd, FilterFlag
from perfkeep.kernel.fd import OwnedFd

_SECCOMP = {"x86_64": 317, "aarch64": 277}
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_PTRACER = 0x59616D61

_ID = struct.Struct("=Q")

_libc = ctypes.CDLL(None, use_errno=True)


class Notification(NamedTuple):
    """One call that waits for an answer.

    Attributes:
        id: names it in answers; only valid while the thread waits.
        pid: the thread, as this process's pid namespace has it; 0: it has no number there.
        nr, arch: the system call, by the numbers of that architecture.
        args: six, as unsigned 64-bit words.
    """

    id: int
    pid: int
    nr: int
    arch: int
    args: tuple[int, ...]


def install(program: bytes) -> OwnedFd:
    """Put this thread, and all that it will fork and exec, under a filter with a listener.

    Who may not do so otherwise gives up gaining privileges by execve(2) (no_new_privs).

    Args:
        program: struct sock_filter, one after another.

    Returns:
        The listener's fd (close-on-exec).

    Raises:
        OSError: EBUSY a filter above has a listener already · ENOSYS, EINVAL no seccomp.
    """
    wanted = FilterFlag.NEW_LISTENER | FilterFlag.SPEC_ALLOW
    number = _install(program, wanted | FilterFlag.WAIT_KILLABLE_RECV)
    if number == -errno.EINVAL:  # before Linux 5.19
        number = _install(program, wanted)
    if number < 0:
        raise OSError(-number, f"seccomp: {os.strerror(-number)}")
    return OwnedFd(number)


def _install(program: bytes, flags: FilterFlag) -> int:
    filters = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog; native alignment puts the pointer where the kernel looks for it.
    header = struct.pack("@HP", len(program) // abi.SOCK_FILTER.size, ctypes.addressof(filters))
    call = _SECCOMP.get(os.uname().machine)
    if call is None:
        return -errno.ENOSYS
    for may_gain_privileges in (True, False):
        if not may_gain_privileges and _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            return -ctypes.get_errno()
        fd = _libc.syscall(call, abi.SECCOMP_SET_MODE_FILTER, int(flags), header)
        if fd >= 0:
            return int(fd)
        if ctypes.get_errno() != errno.EACCES:
            break
    return -ctypes.get_errno()


def allow_tracer(pid: int) -> None:
    """Yama's PR_SET_PTRACER: let this process look into us where only an ancestor might.

    Where there is no Yama the kernel answers EINVAL, and nothing needs to be allowed.
    """
    _libc.prctl(_PR_SET_PTRACER, ctypes.c_ulong(pid), 0, 0, 0)


def wake_synchronously(listener: int) -> None:
    """Have the kernel switch between program and supervisor at once (Linux 6.6); else as before."""
    try:
        fcntl.ioctl(
            listener, abi.SECCOMP_IOCTL_NOTIF_SET_FLAGS, abi.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
        )
    except OSError:
        pass  # an older kernel: it takes 50 µs longer


def receive(listener: int) -> Notification | None:
    """The next call, waited for. None: its thread was killed before it could be taken, or the
    wait was interrupted."""
    buffer = bytearray(abi.NOTIF.size)  # the kernel demands zeros
    try:
        fcntl.ioctl(listener, abi.SECCOMP_IOCTL_NOTIF_RECV, buffer)
    except (FileNotFoundError, InterruptedError):
        return None
    id, pid, _, nr, arch, _, *args = abi.NOTIF.unpack(buffer)
    return Notification(id, pid, nr, arch, tuple(args))


def valid(listener: int, id: int) -> bool:
    """Whether the thread still waits: only then what was read by its pid was its own."""
    try:
        fcntl.ioctl(listener, abi.SECCOMP_IOCTL_NOTIF_ID_VALID, _ID.pack(id))
    except FileNotFoundError:
        return False
    return True


def _respond(listener: int, id: int, value: int, error: int, flags: int) -> bool:
    try:
        fcntl.ioctl(
            listener,
            abi.SECCOMP_IOCTL_NOTIF_SEND,
            bytearray(abi.NOTIF_RESP.pack(id, value, -error, flags)),
        )
    except FileNotFoundError:
        return False
    return True


def go_on(listener: int, id: int) -> bool:
    """Let the kernel answer. False: the thread has gone."""
    return _respond(listener, id, 0, 0, abi.SECCOMP_USER_NOTIF_FLAG_CONTINUE)


def answer(listener: int, id: int, value: int) -> bool:
    """The call returns `value`. False: the thread has gone."""
    return _respond(listener, id, value, 0, 0)


def refuse(listener: int, id: int, error: int) -> bool:
    """The call fails with this errno. False: the thread has gone."""
    return _respond(listener, id, 0, error, 0)


def inject(listener: int, id: int, fd: int, cloexec: bool) -> int:
    """Put a copy of `fd` into the program, and have the call return its number there.

    Args:
        cloexec: close-on-exec there.

    Returns:
        The number there.

    Raises:
        OSError: ENOENT the thread has gone · EMFILE the program may open no more.
    """
    request = abi.NOTIF_ADDFD.pack(id, AddFd.SEND, fd, 0, os.O_CLOEXEC if cloexec else 0)
    # Only of a mutable buffer does Python give what ioctl(2) returned.
    return int(fcntl.ioctl(listener, abi.SECCOMP_IOCTL_NOTIF_ADDFD, bytearray(request)))
