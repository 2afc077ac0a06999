"""Processes as targets: pids mean nothing without the PID namespace that they are numbers of."""

from __future__ import annotations

from perfkeep.errors import UsageError
from perfkeep.kernel.pids import pid_namespace, proc_shows_own_pids
from perfkeep.wire import messages


def of_process(pid: int) -> messages.Target:
    """A process by its number in the PID namespace that this process is in.

    Raises:
        UsageError: /proc shows other pids than perf_event_open(2) takes.
    """
    target = messages.Target(pids=[pid], pid_namespace=pid_namespace())
    check_pids(target)
    return target


def check_pids(target: messages.Target) -> None:
    """The pids of a target must mean the same here as where it was named.

    Raises:
        UsageError: they are numbers of another PID namespace, or /proc shows such.
    """
    if target.pids is None:
        return
    if target.pid_namespace not in (None, pid_namespace()):
        raise UsageError(
            f"{target} is a number of another PID namespace than this process is in",
            hint="run the same command in the PID namespace in which the recording was started",
        )
    if not proc_shows_own_pids():
        raise UsageError(
            "/proc shows the processes of another PID namespace than this process is in, so "
            f"{target} would not be the process that is seen there",
            hint="give it a /proc of its own: unshare --mount-proc perfkeep …",
        )


def check_known(target: messages.Target) -> None:
    """The tasks of a target must be known to open one more event for them.

    Raises:
        UsageError: they are those of adopted events.
    """
    if target.program is not None and target.program.per_task:
        raise UsageError(
            f"the events that process {target.program.pid} ({target.program.command}) opened follow tasks "
            "that the kernel does not name, so no event can be opened for the same tasks",
            hint="perfkeep start NAME -e EVENT -p PID",
        )
