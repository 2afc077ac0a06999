"""Start a Python program that inherits just the fds it is told of."""

from __future__ import annotations

import os
import sys

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW


def spawn(
    command: list[str],
    keep: tuple[int, ...],
    log: str | None = None,
    python: str | None = None,
) -> int:
    """posix_spawn(3) of this Python, or of another, with `command` as its arguments; gives the pid.

    It is in a process group of its own: what a terminal sends its foreground group on Ctrl-C is for
    the process that a person started.

    Args:
        log: a file that standard output and error are appended to, with no standard input;
            None leaves all three as they are.

    Raises:
        OSError: EAGAIN, ENOMEM: no process to be had; EACCES, ENOENT: no such log.
    """
    actions: list[tuple[int, int, str, int, int] | tuple[int, int, int]] = []
    if log is not None:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, _APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
    # To itself: no longer closed on exec, in the new process alone (glibc since 2.29, musl).
    actions += [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in keep]
    python = python or sys.executable
    # posix_spawn(3) takes no entry without a name, as "=C:" is.
    environment = {name: value for name, value in os.environ.items() if name}
    return os.posix_spawn(
        python, [python, *command], environment, file_actions=actions, setpgroup=0
    )


def wait(pid: int) -> int | None:
    """waitpid(2) for a child of ours; its status, or None where this process ignores SIGCHLD: the
    kernel then keeps none.
    """
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return None
