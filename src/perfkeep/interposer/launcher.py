"""Becoming the program, with a supervisor beside it.

The process that was started becomes the program: same pid, same parent, same terminal, so signals,
job control and exit codes are what they would be without us. The supervisor is a process of its
own, in a session of its own, that nobody waits for; it ends when all programs under the filter
have.
"""

from __future__ import annotations

import errno
import os
import platform
import signal
import socket
from typing import NoReturn

from perfkeep.abi.perf_event import PERF_TYPE_PERSISTENT, Attr, Flag
from perfkeep.errors import KernelRefused, UsageError
from perfkeep.interposer import filter
from perfkeep.kernel import seccomp
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.namespace import unshare_mounts
from perfkeep.kernel.syscalls import perf_event_open
from perfkeep.wire import instance
from perfkeep.wire.instance import Instance


def is_supervised() -> bool:
    """Whether this process is under a filter of ours already.

    A stock kernel looks at the reserved bits of an attr before anything else (EINVAL); we ignore
    all but the id, and 0 is none (ENOENT).
    """
    try:
        perf_event_open(Attr(type=PERF_TYPE_PERSISTENT, flags=Flag(1 << 63)), -1, 0).close()
    except OSError as error:
        return error.errno not in (errno.EINVAL, errno.ENOSYS)
    return False


def put_under_supervision(where: Instance) -> None:
    """From here on this process, and all that it forks and execs, has the extended ABI.

    Raises:
        UsageError: ENOSYS: not on this machine.
        KernelRefused: the kernel has no such filters, or one above has a listener already.
    """
    program = filter.program(platform.machine())
    if is_supervised():
        return
    instance.prepare_directory(where)
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            supervisor = _start(ours, theirs, where)
        seccomp.allow_tracer(supervisor)
        try:
            listener = seccomp.install(program)
        except OSError as error:
            raise _refused(error) from error
        with listener:
            socket.send_fds(ours, [b"!"], [listener.fileno()])
            if not ours.recv(1):
                raise KernelRefused(
                    errno.EIO, f"the supervisor ended at once; its log {where.log} says why"
                )


def _refused(error: OSError) -> KernelRefused:
    if error.errno == errno.EBUSY:
        text = (
            "another program supervises this one by seccomp already (a container manager?), and "
            "the kernel allows one; start perfkeep exec outside of it"
        )
    else:
        text = f"this kernel does not let perfkeep exec supervise programs: {error.strerror}"
    return KernelRefused(error.errno or errno.ENOSYS, text)


def _start(ours: socket.socket, theirs: socket.socket, where: Instance) -> int:
    """Fork the supervisor, twice, so that the program never meets a child that it did not make;
    gives its pid."""
    child = os.fork()
    if child:
        theirs.close()
        os.waitpid(child, 0)
        return int(ours.recv(16) or 0)
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        ours.close()
        _become_supervisor(theirs, where)
    finally:
        os._exit(1)


def _become_supervisor(link: socket.socket, where: Instance) -> None:
    """In the grandchild: let go of all that is the program's, then serve."""
    log = os.open(where.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for number, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, number)
    kept = link.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    from perfkeep.interposer.supervisor import Supervisor

    link.sendall(b"%d" % os.getpid())
    _, fds, _, _ = socket.recv_fds(link, 1, 1)
    if not fds:
        return  # the program could not be put under the filter
    supervisor = Supervisor(OwnedFd(fds[0]), where)
    link.sendall(b"!")
    link.close()
    supervisor.run()
    os._exit(0)


def show_events(where: Instance, may_mount: bool = True) -> dict[str, str]:
    """Put the sysfs view before the program: at the literal path if it is there or can be put
    there for this program alone, by SYSFS_PATH otherwise.

    Returns:
        What the program's environment needs, unless it is set already.
    """
    from perfkeep.client import connection, sysfs

    try:
        try:
            if sysfs.is_mounted(where):
                return {}
            if may_mount:
                unshare_mounts()
                sysfs.mount_at_literal_path(where)
                return {}
        except OSError:
            pass  # no right to mount, no overlayfs, or another instance's events are there
        return {"SYSFS_PATH": sysfs.second_sysfs(where)}
    finally:
        connection.disconnect()


def become(command: list[str], defaults: dict[str, str]) -> NoReturn:
    """execvp(3), with the environment and the signals that this process was started with, which
    Python has changed since: it ignores SIGPIPE, and sets LC_CTYPE in the C locale.

    Args:
        defaults: environment variables, for those that are not set.

    Raises:
        UsageError: nothing to run.
        OSError: ENOENT no such program · EACCES, ENOEXEC it cannot be run.
    """
    if not command:
        raise UsageError("name a program to run: perfkeep exec -- perf stat -a")
    with open("/proc/self/environ", "rb") as file:
        pairs = [line.partition(b"=")[::2] for line in file.read().split(b"\0") if line]
    environment = {os.fsencode(name): os.fsencode(value) for name, value in defaults.items()}
    environment.update(pairs)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execvpe(command[0], command, environment)
