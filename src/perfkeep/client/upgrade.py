"""Has an instance go on with the code of this package, without a sample missing."""

from __future__ import annotations

import errno
import os
import sys
import time

import perfkeep
from perfkeep.client.connection import START_TIMEOUT_S, Connection, call, disconnect, try_connect
from perfkeep.errors import BrokerError, Unreachable
from perfkeep.kernel.spawn import spawn, wait
from perfkeep.wire import instance, messages


def upgrade() -> tuple[str, str] | None:
    """The versions before and after; None: no instance runs.

    Raises:
        BrokerError: EACCES: neither root nor the instance's owner.
        Unreachable: the new daemons do not answer; the log says why.
    """
    where = instance.current()
    if not _is_alive(where):
        return None
    package = os.path.dirname(os.path.abspath(perfkeep.__file__))
    _check_that_it_runs(package)
    before = _status()
    call("Upgrade", messages.Upgrade(sys.executable, package))
    disconnect()
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            after = _status()
        except Unreachable:
            after = before  # between the two
        if after.broker.pid != before.broker.pid and after.keeper.pid != before.keeper.pid:
            return before.version, after.version
        if after.broker.pid != before.broker.pid:
            # The keeper of before has been in charge all the time, and started it.
            raise Unreachable(
                "something died in the middle, and the instance goes on with the code of before",
                hint=f"perfkeep upgrade; the log says why: {before.log}",
            )
        if time.monotonic() > deadline:
            raise Unreachable(
                f"the daemons are still those of before after {START_TIMEOUT_S:.0f} s",
                hint=f"the log says why: {before.log}",
            )
        time.sleep(0.02)


def _is_alive(where: instance.Instance) -> bool:
    """True if a broker answers, or a broker or a keeper has the instance and will answer."""
    sock = try_connect(where.socket)
    if sock is not None:
        sock.close()
        return True
    if not os.path.exists(where.lock):
        return False
    lock = instance.take_lock(where)
    if lock is not None:
        lock.close()
    return lock is None


def _status() -> messages.Status:
    with Connection(instance.current()) as connection:
        return connection.call("GetStatus", messages.Nothing(), messages.Status)[0]


def _check_that_it_runs(package: str) -> None:
    """What cannot even start must not take over."""
    for room in ("broker", "keeper", "opener", "redactor"):
        path = os.path.join(package, room, "__main__.py")
        pid = spawn(["-I", path, "--try"], ())
        status = wait(pid)
        if status is None:
            raise BrokerError(
                errno.ECHILD,
                f"SIGCHLD is ignored, so nothing tells whether {path} starts; nothing was changed",
                hint="call upgrade from a process that does not ignore SIGCHLD",
            )
        if status:
            raise BrokerError(
                os.waitstatus_to_exitcode(status) or 1,
                f"{path} does not start with {sys.executable}; nothing was changed",
            )
