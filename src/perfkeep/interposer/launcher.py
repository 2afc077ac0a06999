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
from perfkeep.client import connection, sysfs
from perfkeep.errors import KernelRefused, PerfkeepError
from perfkeep.interposer import filter
from perfkeep.kernel import execute, seccomp
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.namespace import unshare_mounts
from perfkeep.kernel.spawn import wait
from perfkeep.kernel.syscalls import perf_event_open
from perfkeep.wire import instance
from perfkeep.wire.instance import Instance

#: The first that gives a program an fd and its number in one step (SECCOMP_ADDFD_FLAG_SEND).
_OLDEST = (5, 14)


def prepare(where: Instance, may_mount: bool = True) -> dict[str, str]:
    """From here on this process, and all that it forks and executes, has the extended ABI.

    Args:
        may_mount: its /sys may be changed, in a mount namespace of its own.

    Returns:
        What the program's environment needs, unless it is set already.

    Raises:
        UsageError: ENOSYS: not on this machine.
        KernelRefused: the kernel has no such filters, or one above has a listener already; or
            the supervisor cannot start.
        Unreachable: there is no broker, and none can be started.
    """
    program = filter.program(platform.machine())
    if is_supervised():
        return {}
    _check_kernel()
    # While nothing is special about us yet: a broker inherits all from who starts it.
    with connection.Shared():
        pass
    connection.disconnect()
    with _start_supervisor(where) as link:
        defaults = _show_events(where, may_mount)
        _hand_over(link, program, where)
    return defaults


def is_supervised() -> bool:
    """Whether this process is under a filter of ours already.

    A stock kernel looks at the reserved bits of an attr before anything else (EINVAL); we ignore
    all but the id, and 0 is none (ENOENT).
    """
    try:
        perf_event_open(Attr(type=PERF_TYPE_PERSISTENT, flags=Flag(1 << 63)), -1, 0).close()
    except OSError as error:
        return error.errno == errno.ENOENT
    return False


def _check_kernel() -> None:
    release = os.uname().release
    if tuple(map(int, release.split("-")[0].split(".")[:2])) < _OLDEST:
        raise KernelRefused(
            errno.ENOSYS, f"perfkeep exec needs Linux 5.14 or newer, and this is {release}"
        )


# --- the supervisor ---------------------------------------------------------------------------


def _start_supervisor(where: Instance) -> socket.socket:
    """Fork it, twice, so that the program never meets a child that it did not make; gives the
    link over which it waits for a listener.

    Raises:
        KernelRefused: it cannot start.
    """
    instance.prepare_directory(instance.of_caller(where))
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        ours.close()
        _detach_and_serve(theirs, where)
    theirs.close()
    wait(child)
    said = ours.recv(4096).decode(errors="replace")
    if not said.isdecimal():
        ours.close()
        why, _, hint = said.partition("\n")
        raise KernelRefused(
            errno.EIO, f"the supervisor cannot start: {why or 'it ended at once'}", hint=hint
        )
    seccomp.allow_tracer(int(said))
    return ours


def _detach_and_serve(link: socket.socket, where: Instance) -> NoReturn:
    """In the child. Nothing that happens here may ever return into the caller's code."""
    code = 1
    try:
        os.setsid()
        if not os.fork():
            _let_go(link, where)
            _supervise(link, where)
        code = 0
    except Exception as error:
        hint = error.hint if isinstance(error, PerfkeepError) else ""
        link.sendall(f"{error}\n{hint}".encode())
    finally:
        os._exit(code)


def _let_go(link: socket.socket, where: Instance) -> None:
    """Close all that is the program's; a pipe that it writes to must end with it."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    log = os.open(instance.of_caller(where).log, flags, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for number, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, number)
    kept = link.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
    # The path may have been a relative one.
    os.environ["PERFKEEP_SOCKET"] = where.socket
    os.chdir("/")
    for signal_ in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(signal_, signal.SIG_IGN)


def _supervise(link: socket.socket, where: Instance) -> None:
    from perfkeep.interposer.supervisor import Supervisor

    link.sendall(b"%d" % os.getpid())
    _, fds, _, _ = socket.recv_fds(link, 1, 1)
    if not fds:
        return  # the program could not be put under the filter
    supervisor = Supervisor(OwnedFd(fds[0]), where)
    link.sendall(b"!")
    link.close()
    supervisor.run()


def _hand_over(link: socket.socket, program: bytes, where: Instance) -> None:
    """Put this process under the filter, and give the supervisor its listener.

    Raises:
        KernelRefused: the kernel does not, or the supervisor is gone.
    """
    try:
        listener = seccomp.install(program)
    except OSError as error:
        raise _refused(error) from error
    with listener:
        try:
            socket.send_fds(link, [b"!"], [listener.fileno()])
            there = link.recv(1)
        except OSError:
            there = b""
    if not there:
        raise KernelRefused(
            errno.EIO,
            "the supervisor ended at once",
            hint=f"its log says why: {instance.of_caller(where).log}",
        )


def _refused(error: OSError) -> KernelRefused:
    if error.errno == errno.EBUSY:
        return KernelRefused(
            errno.EBUSY,
            "another program supervises this one by seccomp already (a container manager?), and "
            "the kernel allows one",
            hint="run perfkeep exec outside of that program",
        )
    text = f"this kernel does not let perfkeep exec supervise programs: {error.strerror}"
    return KernelRefused(error.errno or errno.ENOSYS, text)


# --- the program ------------------------------------------------------------------------------


def _show_events(where: Instance, may_mount: bool) -> dict[str, str]:
    """Put the sysfs view before the program: at the literal path if it is there or can be put
    there for this program alone, by SYSFS_PATH otherwise.
    """
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


def become(
    command: list[str], defaults: dict[str, str], settings: dict[str, str] | None = None
) -> NoReturn:
    """execvp(3), with the bytes of arguments and environment that this process was started with.

    Python ignores SIGPIPE and SIGXFSZ when it starts, and nothing remembers whether they were
    ignored before: the program has them at their defaults.

    Args:
        command: the last arguments of this process.
        defaults: environment variables, for those that are not set.
        settings: environment variables, whether they are set or not.

    Raises:
        OSError: ENOENT no such program · EACCES, ENOEXEC it cannot be run.
    """
    environment = execute.own_environment()
    names = {entry.partition(b"=")[0] for entry in environment}
    for name, value in defaults.items():
        if os.fsencode(name) not in names:
            environment.append(os.fsencode(f"{name}={value}"))
    for name, value in (settings or {}).items():
        start = os.fsencode(f"{name}=")
        environment = [entry for entry in environment if not entry.startswith(start)]
        environment.append(start + os.fsencode(value))
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    execute.execvpe(execute.own_arguments()[-len(command) :], environment)
