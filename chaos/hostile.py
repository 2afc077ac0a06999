"""`python -m chaos.hostile [-max_total_time=600] [CORPUS]`: a broker in this process, and clients that
say what atheris thinks of. Ends at the first exception that nobody expected, lost answer or fd that
stays. The arguments are libFuzzer's. `make fuzz-wire` brings atheris along. Needs root.

The keeper is in a thread, the events are real, and nothing here can be reached from outside.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import atheris
import msgspec

with atheris.instrument_imports(include=["perfkeep.broker", "perfkeep.wire", "msgspec"]):
    import perfkeep
    from perfkeep.broker.absence import Absence
    from perfkeep.broker.audit import Audit
    from perfkeep.broker.connection import Connection
    from perfkeep.broker.link import KeeperLink
    from perfkeep.broker.methods import Methods
    from perfkeep.broker.policy import Policy
    from perfkeep.broker.recordings import Recordings
    from perfkeep.broker.service import Service
    from perfkeep.broker.state import State
    from perfkeep.broker.sysfs import SysfsView
    from perfkeep.errors import BrokerError
    from perfkeep.keeper.service import Keeping, serve
    from perfkeep.kernel import fd as owned
    from perfkeep.wire import framing, messages, packets
    from perfkeep.wire.instance import Instance
    from perfkeep.wire.messages import INTERFACE, METHODS
    from perfkeep.wire.socket import Peer

#: Inputs between two looks at what is open.
_EVERY = 500
#: Seconds until whoever asked has an answer.
_PATIENCE_S = 10.0
_STEPS = 6
_MOST_FDS = 3
_NAMES = sorted(METHODS)
_RIGHT: dict[str, Any] = {
    "name": "flight", "id": 1, "cpu": 0, "events": [1], "index": 0, "dry_run": True,
    "enable": True, "slots": [{"kind": 0, "cpu": 0}], "access": {"mode": 0o640},
    "target": "all tasks", "ttl_ns": 10**12, "ring": {"kind": "backward", "bytes_per_cpu": 4096},
    "python": sys.executable, "package": "/nowhere", "longest": 256,
}  # fmt: skip


class House:
    """What a broker's process is, without the process."""

    def __init__(self, folder: str) -> None:
        self.where = Instance(f"{folder}/s")
        self.audit = Audit(self.where.audit)
        self.keeper_pid = os.getpid()
        self.sandbox = "none"
        self.redactor = "/nowhere"
        self.problems: list[str] = []

    def upgrade(self, request: messages.Upgrade) -> None:
        raise BrokerError(errno.EINVAL, f"there is no {request.package} to go on with")


class Broken(Exception):
    """What should not be."""


class Hostile:
    """The broker, and what is done to it."""

    def __init__(self, folder: str) -> None:
        ours, theirs = packets.link_pair()
        lock = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        threading.Thread(target=serve, args=(theirs, Keeping(lock)), daemon=True).start()
        house = House(folder)
        self.recordings = Recordings(
            KeeperLink(ours), SysfsView(house.where.devices), State(house.where.state), Policy()
        )
        absence = Absence(self.recordings, lambda _: None, house.audit.happened)
        self.service = Service(Methods(self.recordings, absence, house), 0.0)
        self.event = perfkeep.open_event("cpu-clock", cpu=0)
        with self.event:
            attr = self.event.attr.pack()
        self.kind = msgspec.to_builtins(messages.Kind("cpu-clock", "cpu-clock", attr))
        self.count = 0
        self.open = 0

    def try_one(self, data: bytes) -> None:
        """One client: what it says is in `data`."""
        given = atheris.FuzzedDataProvider(data)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.service.employ(theirs, 0)
        (connection,) = self.service.connections
        if given.ConsumeBool():
            connection.is_guest = True
            connection.peer = Peer(os.getpid(), 1000, 1000)
        with ours:
            for _ in range(given.ConsumeIntInRange(1, _STEPS)):
                if not self._say(ours, connection, given):
                    break
        self._until(lambda: not self.service.connections)
        self._start_anew()
        self.count += 1
        if self.count % _EVERY == 0:
            self._look_at_fds()

    def _say(self, sock: socket.socket, connection: Connection, given: Any) -> bool:
        text, count = self._message(given)
        with perfkeep.open_event("cpu-clock", cpu=0) as event, open("/dev/null") as null:
            fds = [event.fileno(), null.fileno(), sock.fileno()]
            if given.ConsumeBool():
                fds = [event.fileno()] * _MOST_FDS
            try:
                socket.send_fds(sock, [text], fds[:count])
            except OSError:
                return False
        if text.endswith(b"\0"):
            return self._answered(sock, connection)
        self.service.step(0)
        return connection in self.service.connections

    def _message(self, given: Any) -> tuple[bytes, int]:
        """The bytes, and how many fds go with them."""
        count = given.ConsumeIntInRange(0, _MOST_FDS)
        if given.ConsumeIntInRange(0, 7) == 0:
            return given.ConsumeBytes(200) or b"\0", count
        name = _NAMES[given.ConsumeIntInRange(0, len(_NAMES) - 1)]
        parameters: dict[str, Any] = {}
        for field in METHODS[name][0].__struct_fields__:
            choice = given.ConsumeIntInRange(0, 5)
            if field == "kinds" and choice:
                parameters[field] = [self.kind]
            elif choice and field in _RIGHT:
                parameters[field] = _RIGHT[field]
            elif choice < 3:
                parameters[field] = _anything(given, 3)
        said = count if given.ConsumeBool() else given.ConsumeIntInRange(-5, 300)
        call = {"method": f"{INTERFACE}.{name}", "parameters": parameters, "fds": said}
        return msgspec.json.encode(call) + b"\0", count

    def _answered(self, sock: socket.socket, connection: Connection) -> bool:
        """Every message has an answer, or the end."""
        data = b""

        def arrived() -> bool:
            nonlocal data
            with suppress(BlockingIOError, ConnectionResetError):
                while True:
                    more, fds, _, _ = socket.recv_fds(sock, 1 << 16, 16)
                    for one in fds:
                        os.close(one)
                    if not more:
                        break
                    data += more
            return data.endswith(b"\0") or connection not in self.service.connections

        self._until(arrived)
        for answer in data.split(b"\0")[:-1]:
            reply = msgspec.json.decode(answer, type=framing.Reply)
            if b'"broken: ' in bytes(reply.parameters):
                raise Broken(bytes(reply.parameters).decode())
        return connection in self.service.connections

    def _until(self, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + _PATIENCE_S
        while not holds():
            self.service.step(0.01)
            if time.monotonic() > until:
                raise Broken("no answer")

    def _start_anew(self) -> None:
        for recording in list(self.recordings.registry):
            self.recordings.end(recording)
        self.recordings.bury()

    def _look_at_fds(self) -> None:
        until = time.monotonic() + _PATIENCE_S
        while threading.active_count() > 2 or owned.pending:
            if time.monotonic() > until:
                raise Broken("a thread does not end")
            time.sleep(0.01)
        now = len(os.listdir("/proc/self/fd"))
        if self.open and now > self.open:
            raise Broken(f"{now - self.open} fds stay open")
        self.open = now


def _anything(given: Any, depth: int) -> Any:
    """JSON."""
    kind = given.ConsumeIntInRange(0, 7 if depth else 4)
    if kind == 0:
        return None
    if kind == 1:
        return given.ConsumeIntInRange(-(2**63), 2**63 - 1)
    if kind == 2:
        return given.ConsumeBool()
    if kind == 3:
        return given.ConsumeUnicodeNoSurrogates(30)
    if kind == 4:
        return given.ConsumeRegularFloat()
    inner = [_anything(given, depth - 1) for _ in range(given.ConsumeIntInRange(0, 3))]
    if kind == 5:
        return inner
    keys = [given.PickValueInList(sorted(_RIGHT)) for _ in inner]
    return dict(zip(keys, inner, strict=True))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        hostile = Hostile(folder)
        atheris.Setup(sys.argv, hostile.try_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
