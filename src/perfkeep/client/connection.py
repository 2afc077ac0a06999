"""A blocking connection to the broker, which is started when there is none."""

from __future__ import annotations

import _thread
import errno
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from perfkeep.errors import BrokerError, PerfkeepError, Unreachable
from perfkeep.kernel.fd import OwnedFd
from perfkeep.wire import instance, messages, older
from perfkeep.wire.framing import FAILED, Call, Failed, Reply, encode
from perfkeep.wire.instance import Instance
from perfkeep.wire.messages import FDS_PER_STAGE, INTERFACE, METHODS, Nothing
from perfkeep.wire.socket import Channel, peer_of

Result = TypeVar("Result", bound=msgspec.Struct)
Answer = TypeVar("Answer")

_DONTWAIT = int(socket.MSG_DONTWAIT)
_PEEK = int(socket.MSG_PEEK) | _DONTWAIT
_SPIN_NS = 60_000

#: A broker is there within about 0.1 s. One that brings recordings back after both daemons died waits
#: up to 10 s for what opens their events, and on a busy machine starts late; one that has not
#: answered by then is broken.
START_TIMEOUT_S = 30.0
_LAUNCH_AGAIN_S = 0.3
_MOST_FAILURES = 3
#: Another user's broker cannot be started from here, but it may be restarting; then its socket stays,
#: but for a moment in an upgrade.
_RESTART_S, _UPGRADE_S = 5.0, 0.5
_LONGEST_PAUSE_S = 0.3


class Connection:
    """Requests and their answers, in order.

    Args:
        where: the instance; its broker is started if none answers.
        sock: connected to it already.
    """

    def __init__(self, where: Instance, sock: socket.socket | None = None) -> None:
        self.where = where
        self.channel = Channel(sock or connect(where))

    def call(
        self,
        name: str,
        parameters: msgspec.Struct,
        result: type[Result],
        fds: Sequence[OwnedFd] = (),
    ) -> tuple[Result, list[OwnedFd]]:
        """One request and its answer, with the fds that came with it.

        Raises:
            BrokerError: the broker's own words and errno; where it has no such recording and root's
                instance has one, the hint says so.
            Unreachable: it went away before it answered.
            PerfkeepError: EPROTO: it is of another version.
        """
        self.send(name, parameters, fds)
        try:
            return self.receive(result)
        except BrokerError as error:
            if error.errno == errno.ENOENT and self.where.socket != instance.SYSTEM:
                from perfkeep.client.instances import hint_of_system

                error.hint = hint_of_system(getattr(parameters, "name", None)) or error.hint
            raise

    def send(self, name: str, parameters: msgspec.Struct, fds: Sequence[OwnedFd] = ()) -> None:
        """Only the request; as many `receive` calls must follow."""
        call = Call(f"{INTERFACE}.{name}", msgspec.Raw(msgspec.json.encode(parameters)), len(fds))
        rest, numbers = memoryview(encode(call)), [fd.fileno() for fd in fds]
        try:
            while rest:
                rest, numbers = rest[self.channel.send(rest, numbers) :], []
        except (BrokenPipeError, ConnectionResetError):
            # It may have said why before it closed; `receive` finds out.
            return

    def receive(self, result: type[Result]) -> tuple[Result, list[OwnedFd]]:
        data = self.channel.splitter.next()
        while data is None:
            if not self._more():
                raise Unreachable(
                    "the broker went away before it answered; what was asked for may or may not "
                    "be done",
                    errno.ECONNRESET,
                    hint=f"perfkeep ls shows whether it is; the broker's log is {self.where.log}",
                )
            data = self.channel.splitter.next()
        reply = msgspec.json.decode(data, type=Reply)
        fds = self.channel.take_fds(reply.fds)
        if reply.error == FAILED:
            failed = msgspec.json.decode(reply.parameters, type=Failed)
            raise BrokerError(failed.errno, failed.message, hint=failed.hint)
        try:
            return older.decode(reply.parameters, result), fds
        except msgspec.ValidationError as error:
            for fd in fds:
                fd.close()
            raise PerfkeepError(
                errno.EPROTO,
                f"the instance that runs is of another version than this perfkeep ({error})",
                hint="perfkeep upgrade",
            ) from error

    def _more(self) -> bool:
        try:
            # Most answers are there sooner than this process could be put to sleep and woken
            # again, which takes 30 to 50 µs on a virtual machine.
            until = time.perf_counter_ns() + _SPIN_NS
            while time.perf_counter_ns() < until:
                try:
                    return self.channel.receive(_DONTWAIT)
                except BlockingIOError:
                    continue
            return self.channel.receive()
        except ConnectionResetError:
            return False

    def stage(self, fds: Sequence[OwnedFd]) -> None:
        """Send fds ahead of the request that uses them, as many at a time as the kernel passes."""
        for first in range(0, len(fds), FDS_PER_STAGE):
            batch = fds[first : first + FDS_PER_STAGE]
            self.call("Stage", Nothing(), messages.Staged, batch)

    @property
    def alive(self) -> bool:
        try:
            return self.channel.sock.recv(1, _PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        self.channel.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def try_connect(path: str) -> socket.socket | None:
    """A socket to whoever listens there; None: nobody.

    Raises:
        OSError: EACCES: not for this user.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(path)
        return sock
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            error.filename = path  # calls of socket(7) do not name it
        raise


def connect(where: Instance) -> socket.socket:
    """A socket to the instance's broker, which is started when nobody answers.

    A socket file that is missing or that nobody listens on starts a broker; when another one
    holds the instance's lock (two first commands, or one that restarts), that one will answer.

    Raises:
        Unreachable: no broker can be started, or it does not answer · EACCES: it is another user's,
            who shares nothing.
        PerfkeepError: EPERM: another user's broker answers at the place of the caller's own.
    """
    if instance.is_foreign(where):
        return _connect_as_guest(where)
    deadline = time.monotonic() + START_TIMEOUT_S
    pause = 0.002
    launch_at, failures = 0.0, 0
    while True:
        sock = try_connect(where.socket)
        if sock is not None:
            return _checked(where, sock)
        if time.monotonic() > launch_at:
            failures += not launch(where)
            if failures == _MOST_FAILURES:
                raise Unreachable("no broker can be started", hint=f"its log says why: {where.log}")
            # Whoever holds the lock may be about to end, and then another one is needed.
            launch_at = time.monotonic() + _LAUNCH_AGAIN_S
            continue
        if time.monotonic() > deadline:
            raise Unreachable(
                f"the broker of {where.socket} is running but does not answer after "
                f"{START_TIMEOUT_S:.0f} s",
                hint=f"{where.lock} has its pid, and its log {where.log} may say why",
            )
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


def _connect_as_guest(where: Instance) -> socket.socket:
    patience = _RESTART_S if os.path.exists(where.socket) else _UPGRADE_S
    deadline, pause = time.monotonic() + patience, 0.002
    while True:
        try:
            sock = try_connect(where.socket)
        except PermissionError as error:
            raise Unreachable(
                f"{where.socket} is another user's instance, which shares no recording",
                errno.EACCES,
            ) from error
        if sock is not None:
            return _checked(where, sock)
        if time.monotonic() > deadline:
            raise Unreachable(
                f"no broker answers at {where.socket}, and only the user whose instance it is can "
                "start one"
            )
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


def _checked(where: Instance, sock: socket.socket) -> socket.socket:
    """The socket, if whoever listens at the place of the caller's own instance is the caller or
    root; in /tmp any user can be there first."""
    if where.socket not in (instance.SYSTEM, instance.of_user()):
        return sock
    uid = peer_of(sock).uid
    if uid in (0, os.geteuid()):
        return sock
    sock.close()
    raise PerfkeepError(
        errno.EPERM,
        f"{where.socket} is served by uid {uid}, and not by you or root",
        hint="name another socket with PERFKEEP_SOCKET",
    )


def launch(where: Instance) -> bool:
    """Start a broker and wait until it serves, or until it has found another.

    Returns:
        False: it ended without a word, and nobody else has the instance.

    Raises:
        Unreachable: it said why it cannot start.
    """
    import select

    import perfkeep
    from perfkeep.kernel.spawn import spawn, wait

    instance.prepare_directory(where)
    main = os.path.join(
        os.path.dirname(os.path.abspath(perfkeep.__file__)), "broker", "__main__.py"
    )
    read_end, write_end = (OwnedFd(number) for number in os.pipe2(os.O_CLOEXEC))
    with read_end:
        with write_end:
            command = ["-I", main, where.socket, "--ready", str(write_end.fileno())]
            pid = spawn(command, (write_end.fileno(),), where.log)
        wait(pid)  # the broker itself is its child, and has detached
        poll = select.poll()
        poll.register(read_end.fileno(), select.POLLIN)
        if not poll.poll(START_TIMEOUT_S * 1000):
            raise Unreachable(
                f"a new broker does not answer after {START_TIMEOUT_S:.0f} s",
                hint=f"its log may say why: {where.log}",
            )
        said = os.read(read_end.fileno(), 4096).decode(errors="replace")
    if said not in ("ready", ""):
        raise Unreachable(said, hint=f"its log says why: {where.log}")
    if said:
        return True
    lock = instance.take_lock(where)
    if lock is not None:
        lock.close()
    return lock is None


_REPEATABLE = {"GetStatus", "List", "Show", "ShowEvent", "Stat", "Reopen"}

#: The process and the instance, and the connection; True: it is to root's instance by name.
_shared: dict[bool, tuple[tuple[int, str], Connection]] = {}
_lock = _thread.allocate_lock()  # threading.Lock, without what else that module loads


class Shared:
    """The process's connection to the current instance, for the duration of a `with`.

    The connection is kept, because reopening an event should not cost a connect as well. A
    forked child makes its own; a broker that has gone since is found out before it is used.

    Args:
        system: to root's instance instead.
    """

    def __init__(self, system: bool = False) -> None:
        self.system = system

    def __enter__(self) -> Connection:
        _lock.acquire()
        try:
            key = (os.getpid(), "" if self.system else os.environ.get("PERFKEEP_SOCKET", ""))
            for_key, connection = _shared.get(self.system, (None, None))
            if connection is None or for_key != key or not connection.alive:
                if connection is not None:
                    del _shared[self.system]
                    connection.close()
                connection = Connection(instance.current(self.system))
                _shared[self.system] = key, connection
            return connection
        except BaseException:
            _lock.release()
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After anything but a clean answer nobody knows what is still on its way.
        if kind is not None and not issubclass(kind, BrokerError):
            disconnect_locked()
        _lock.release()


def disconnect_locked() -> None:
    for _, connection in _shared.values():
        connection.close()
    _shared.clear()


def disconnect() -> None:
    """Close the process's connections; the next request makes another."""
    with _lock:
        disconnect_locked()


def call(
    name: str, parameters: msgspec.Struct, fds: Sequence[OwnedFd] = (), *, system: bool = False
) -> tuple[msgspec.Struct, list[OwnedFd]]:
    """One request over the process's connection, or over that to root's instance; `fds` are staged
    before it."""
    if name not in _REPEATABLE:
        return _call(name, parameters, fds, system)
    return again(lambda: _call(name, parameters, fds, system))


def again(question: Callable[[], Answer]) -> Answer:
    """Ask something that changes nothing, and ask again when the broker dies under it.

    The next broker knows the answer. While the last one is torn down its socket may still take
    connections, so once is not always enough.
    """
    pause = 0.01
    while True:
        try:
            return question()
        except Unreachable as error:
            if error.errno != errno.ECONNRESET or pause > _LONGEST_PAUSE_S:
                raise
            time.sleep(pause)
            pause *= 2


def _call(
    name: str, parameters: msgspec.Struct, fds: Sequence[OwnedFd], system: bool
) -> tuple[msgspec.Struct, list[OwnedFd]]:
    with Shared(system) as connection:
        connection.stage(fds)
        return connection.call(name, parameters, METHODS[name][1])
