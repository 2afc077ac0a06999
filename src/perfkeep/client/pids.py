"""Processes as targets: pids mean nothing without the PID namespace that they are numbers of."""

from __future__ import annotations

from contextlib import suppress

from perfkeep.errors import UsageError
from perfkeep.kernel.pids import EVERY_TASK, pid_namespace, proc_shows_own_pids
from perfkeep.wire import messages


def of_process(pid: int) -> messages.Target:
    """A process by its number in the PID namespace that this process is in.

    Raises:
        UsageError: /proc shows other pids than perf_event_open(2) takes.
    """
    target = messages.Target(pids=[pid], pid_namespace=pid_namespace())
    check_pids(target)
    return target


def of_program(pid: int, per_task: bool) -> messages.Target:
    """Events that a process has opened.

    Args:
        per_task: they follow tasks.
    """
    command, namespace = "gone", None
    with suppress(OSError), open(f"/proc/{pid}/comm", errors="replace") as file:
        command = file.read().strip()
        namespace = pid_namespace(pid)
    program = messages.Program(pid, command, per_task)
    return messages.Target(program=program, pid_namespace=namespace)


def check_pids(target: messages.Target) -> None:
    """Pids must mean the same here as where the recording was started.

    Raises:
        UsageError: they are numbers of another PID namespace, or /proc shows such.
    """
    if not are_of_here(target):
        raise UsageError(
            f"{target} is a number of another PID namespace than this process is in"
            if target.pids is not None
            else "the recording has pids of another PID namespace than this process is in",
            hint="run the same command in the PID namespace in which the recording was started",
        )
    if target.pids is not None and not proc_shows_own_pids():
        raise UsageError(
            "/proc shows the processes of another PID namespace than this process is in, so "
            f"{target} would not be the process that is seen there",
            hint="give it a /proc of its own: unshare --mount-proc perfkeep …",
        )


def are_of_here(target: messages.Target) -> bool:
    """True if pids of the recording mean the same in this process's PID namespace."""
    return target.pid_namespace in (None, pid_namespace())


def are_in_proc(target: messages.Target) -> bool:
    """True if /proc has the tasks of the recording under its pids."""
    return are_of_here(target) and proc_shows_own_pids()


def shows_every_task(target: messages.Target) -> bool:
    """False if tasks that the recording's PID namespace does not show have the pid 0."""
    return target.pids is not None or target.pid_namespace in (None, EVERY_TASK)


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
