"""The broker process: one loop over the public socket, the keeper and the clients.

Wakes only when one of them speaks. Copies of rings run in threads, everything else here.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

from perfkeep.broker.connection import Connection
from perfkeep.broker.log import say
from perfkeep.broker.methods import Methods
from perfkeep.errors import BrokerError, PerfkeepError
from perfkeep.kernel import fd
from perfkeep.kernel.fd import OwnedFd
from perfkeep.wire.framing import FAILED, Call, Failed, Reply
from perfkeep.wire.messages import INTERFACE, METHODS, SERVICE_METHODS, VARLINK_SERVICE

_INTERFACES = {INTERFACE: METHODS, VARLINK_SERVICE: SERVICE_METHODS}
_SLOW = {"CopyRing"}
_FILES_LIMIT = "RLIMIT_NOFILE of the broker (LimitNOFILE= of its unit)"
#: That one guest may have at a time.
MOST_CONNECTIONS = 32
#: Fds that guests have sent and that have not been closed yet.
_MOST_PENDING = 1024
_CHANGES = {"Start", "Claim", "ClaimEvent", "Remove", "SetAccess", "Collect", "Rejoin"}


def parse_call(data: bytes) -> tuple[str, msgspec.Struct, int]:
    """Method name (without the interface), parameters, number of fds.

    Raises:
        PerfkeepError: EBADMSG: not a call of this interface.
    """
    try:
        call = msgspec.json.decode(data, type=Call)
        interface, _, name = call.method.rpartition(".")
        methods = _INTERFACES.get(interface, {})
        if name not in methods:
            raise PerfkeepError(errno.ENOSYS, f"there is no method {call.method!r}")
        parameters = msgspec.json.decode(call.parameters, type=methods[name][0])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PerfkeepError(errno.EBADMSG, f"not a call of {INTERFACE}: {error}") from error
    return name, parameters, call.fds


def failure(error: Exception) -> Reply:
    """The reply that tells a client what went wrong."""
    number = getattr(error, "errno", None) or errno.EIO
    text = str(error) if isinstance(error, PerfkeepError) else os.strerror(number)
    hint = error.hint if isinstance(error, PerfkeepError) else ""
    failed = Failed(number, text if isinstance(error, OSError) else f"broken: {error!r}", hint)
    return Reply(msgspec.Raw(msgspec.json.encode(failed)), FAILED)


class Service:
    """The loop.

    Args:
        linger_s: with no recording and no client for this long, the instance ends.
        changed: called when a request may have changed what there is.
        left: called when an opener has gone, with the id of the recording it was sent for and the
            reason why its last request was refused; "": none was.
    """

    def __init__(
        self,
        methods: Methods,
        linger_s: float,
        changed: Callable[[], None] = lambda: None,
        left: Callable[[int, str], None] = lambda _, __: None,
    ) -> None:
        self.methods = methods
        self.linger_s = linger_s
        self.changed = changed
        self.left = left
        self.selector = selectors.DefaultSelector()
        self.connections: set[Connection] = set()
        self._complained, self._unsaid = float("-inf"), 0
        self._done: deque[tuple[Connection, Reply, list[OwnedFd]]] = deque()
        self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._wake_in, self._wake_out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.selector.register(self._wake_in, selectors.EVENT_READ, self._finish)

    def listen(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener))

    @property
    def wake_fd(self) -> int:
        """Writing a byte here makes `step` return: for threads and signals."""
        return self._wake_out

    @property
    def idle(self) -> bool:
        return not self.connections and not len(self.methods.recordings.registry)

    @property
    def working(self) -> bool:
        """Whether somebody is owed an answer."""
        return any(one.busy or one.sending for one in self.connections)

    def step(self, timeout: float | None = None) -> bool:
        """Wait for something, for at most so many seconds, and deal with it. False: nobody came
        while all was idle.
        """
        ready = self.selector.select(self.linger_s if self.idle else timeout)
        for key, mask in ready:
            if isinstance(key.data, Connection):
                self._serve(key.data, mask)
            else:
                key.data()
        self.methods.recordings.bury()
        return bool(ready) or not self.idle

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self._turn_away(listener, error)
            return
        connection = Connection(sock)
        reason = self._too_many(connection)
        if reason:
            self._complain(f"uid {connection.peer.uid} was turned away: {reason}")
            connection.close()
            return
        self.connections.add(connection)
        self._watch(connection, selectors.EVENT_READ)

    def _too_many(self, new: Connection) -> str:
        """Why a guest cannot be served. Root and the owner of the instance always are."""
        if not new.is_guest:
            return ""
        if len(fd.pending) > _MOST_PENDING:
            return "fds that guests sent take too long to close"
        theirs = sum(one.peer.uid == new.peer.uid for one in self.connections)
        return f"{theirs} connections are enough" if theirs >= MOST_CONNECTIONS else ""

    def _complain(self, text: str) -> None:
        """A line for the log, but not for every one of a thousand."""
        now = time.monotonic()
        if now - self._complained > 1.0:
            more = f" (and {self._unsaid} more like it)" if self._unsaid else ""
            say(f"{text}{more}")
            self._complained, self._unsaid = now, 0
        else:
            self._unsaid += 1

    def employ(self, sock: socket.socket, opens_for: int) -> None:
        """Serve the opener at the other end, which works for this recording."""
        connection = Connection(sock)
        connection.opens_for = opens_for
        self.connections.add(connection)
        self._watch(connection, selectors.EVENT_READ)

    def _turn_away(self, listener: socket.socket, error: OSError) -> None:
        """No fd for another client. With the one kept for this it is taken and closed, or else
        the listener would stay readable and we would spin.
        """
        self._complain(f"a client was turned away: {error}")
        os.close(self._reserve)
        try:
            listener.accept()[0].close()
        except OSError:
            pass  # it has left already
        self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _serve(self, connection: Connection, mask: int) -> None:
        try:
            if mask & selectors.EVENT_READ and not connection.channel.receive():
                self._close(connection)
                return
            self._advance(connection)
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:
            self._complain(f"a client of uid {connection.peer.uid} was cut off: {error}")
            self._tell(connection, error)
            self._close(connection)

    def _tell(self, connection: Connection, error: Exception) -> None:
        """Say why before the end: of this message nothing more can be understood."""
        number, text = getattr(error, "errno", None), getattr(error, "strerror", None)
        hint = ""
        if number == errno.EMFILE:
            hint = f"raise {_FILES_LIMIT}"
        elif number != errno.EINVAL:
            return
        connection.queue(failure(BrokerError(number, str(text), hint=hint)), [])
        try:
            connection.flush()
        except OSError:
            pass  # it does not listen

    def _advance(self, connection: Connection) -> None:
        """Answer what has arrived; one request at a time, and none while a reply waits."""
        connection.flush()
        while not connection.busy and not connection.sending:
            data = connection.channel.splitter.next()
            if data is None:
                break
            self._answer(connection, data)
            connection.flush()
        events = 0 if connection.busy or connection.sending else selectors.EVENT_READ
        if connection.sending:
            events |= selectors.EVENT_WRITE
        self._watch(connection, events)

    def _watch(self, connection: Connection, events: int) -> None:
        known, connection.watched = connection.watched, events
        if events == known:
            return
        if not known:
            self.selector.register(connection.channel.sock, events, connection)
        elif events:
            self.selector.modify(connection.channel.sock, events, connection)
        else:
            self.selector.unregister(connection.channel.sock)

    def _answer(self, connection: Connection, data: bytes) -> None:
        try:
            name, parameters, fds = parse_call(data)
        except PerfkeepError as error:
            # How many fds belong to it is unknown, so nothing after it can be understood.
            connection.queue(failure(error), [])
            connection.flush()
            raise
        connection.staged += connection.channel.take_fds(fds)
        if name in _SLOW:
            connection.busy = True
            try:
                threading.Thread(
                    target=self._work, args=(connection, name, parameters), daemon=True
                ).start()
            except RuntimeError:  # no thread to be had; then the others wait
                self._work(connection, name, parameters)
        else:
            connection.queue(*self._call(connection, name, parameters))

    def _call(
        self, connection: Connection, name: str, parameters: msgspec.Struct
    ) -> tuple[Reply, list[OwnedFd]]:
        try:
            result, fds = self.methods.call(connection, name, parameters)
        except Exception as error:
            connection.refusal = str(error)
            if not isinstance(error, PerfkeepError):
                say(f"{name} failed: {error!r}")
            return failure(error), []
        if name in _CHANGES:
            self.changed()
        return Reply(msgspec.Raw(msgspec.json.encode(result))), fds

    def _work(self, connection: Connection, name: str, parameters: msgspec.Struct) -> None:
        """In a thread; `_finish` takes over in the loop."""
        reply, fds = self._call(connection, name, parameters)
        self._done.append((connection, reply, fds))
        os.write(self._wake_out, b"\0")

    def _finish(self) -> None:
        os.read(self._wake_in, 4096)
        while self._done:
            connection, reply, fds = self._done.popleft()
            connection.busy = False
            if connection in self.connections:
                connection.queue(reply, fds)
                self._serve(connection, 0)

    def _close(self, connection: Connection) -> None:
        self._watch(connection, 0)
        self.connections.discard(connection)
        connection.close()
        if connection.opens_for:
            self.left(connection.opens_for, connection.refusal)
