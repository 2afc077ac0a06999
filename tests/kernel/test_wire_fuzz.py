"""Random requests with random fds to a real broker: it answers each, and lives, and leaks nothing."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, suppress

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import perfkeep
from perfkeep.client.connection import disconnect
from perfkeep.testing.requirements import perf_events, requires
from perfkeep.wire import framing
from perfkeep.wire.framing import Reply
from perfkeep.wire.instance import current
from perfkeep.wire.messages import INTERFACE, METHODS
from support.instance import Running
from support.waiting import Eventually

pytestmark = requires(perf_events)

#: Of these the broker ends, by design, or waits for what is not there.
_NOT = {"Upgrade"}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, int]:
    """A message, and how many fds go with it: one that is nearly right, or nothing like it."""
    fds = draw(st.integers(0, 3))
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=100)) + b"\0", fds
    name = draw(st.sampled_from(sorted(set(METHODS) - _NOT)))
    fields = METHODS[name][0].__struct_fields__
    parameters = {}
    for field in fields:
        right = {"name": "flight", "id": 1, "cpu": 0, "events": [1], "index": 0, "kinds": [],
                 "slots": [{"kind": 0, "cpu": 0}], "access": {"mode": 0o640}, "dry_run": True,
                 "enable": True, "target": {}, "ttl_ns": 10**12,
                 "ring": {"kind": "backward", "bytes_per_cpu": 4096}}.get(field)  # fmt: skip
        parameters[field] = draw(st.just(right) | JSON) if right is not None else draw(JSON)
    said = draw(st.just(fds) | st.integers(-5, 300))
    call = {"method": f"{INTERFACE}.{name}", "parameters": parameters, "fds": said}
    return msgspec.json.encode(call) + b"\0", fds


def answer(sock: socket.socket) -> bytes:
    data = b""
    with suppress(ConnectionResetError):
        while not data.endswith(b"\0") and (more := sock.recv(1 << 16)):
            data += more
    return data


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(requests(), min_size=1, max_size=6))
def test_a_broker_answers_whatever_comes_and_goes_on(
    running: Running, messages: list[tuple[bytes, int]]
) -> None:
    if "flight" not in [one.name for one in perfkeep.recordings()]:
        perfkeep.start("flight", ["cpu-clock"], cpus=[0], ring="4K")
    broker, _ = running.pids()
    with socket.socket(socket.AF_UNIX) as sock, ExitStack() as stack:
        sock.settimeout(30)
        sock.connect(current().socket)
        event = stack.enter_context(perfkeep.open_event("cpu-clock", cpu=0))
        kinds = [os.open("/dev/null", os.O_RDONLY), os.memfd_create("fuzz"), event.fileno()]
        stack.callback(os.close, kinds[0])
        stack.callback(os.close, kinds[1])
        for data, count in messages:
            try:
                socket.send_fds(sock, [data], kinds[:count])
            except OSError:
                break  # cut off, as it said something that cannot be followed
            said = answer(sock)
            if not said:
                break
            msgspec.json.decode(said.rstrip(b"\0"), type=Reply)
    assert running.pids()[0] == broker
    assert f"/proc/{broker}" and os.path.exists(f"/proc/{broker}")
    for one in perfkeep.recordings():
        if one.name != "flight":
            one.claim()


def test_what_was_sent_to_it_does_not_stay_open(running: Running, eventually: Eventually) -> None:
    perfkeep.start("flight", ["cpu-clock"], cpus=[0], ring="4K")
    broker, _ = running.pids()
    before = len(os.listdir(f"/proc/{broker}/fd"))
    for number in range(50):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(current().socket)
            call = framing.encode(framing.Call(f"{INTERFACE}.Stage", fds=number % 4))
            with suppress(OSError):
                socket.send_fds(sock, [call[: number + 1]], [0, 1, 2])
    disconnect()
    eventually(lambda: len(os.listdir(f"/proc/{broker}/fd")) <= before)
