"""A process under `perfkeep exec` need not be asked what its events are."""

from __future__ import annotations

import perfkeep
from perfkeep.client.adopt import adopt
from perfkeep.testing.requirements import (
    compiler,
    perf_events,
    requires,
    root,
    seccomp_notification,
)
from support.program import CPU_CLOCK, SOFTWARE, Launch
from support.waiting import Eventually

pytestmark = requires(perf_events, compiler, root, seccomp_notification)

#: Anything but what perf would ask for.
FIELDS = ["period=3000000", "sample_type=0x10086", "read_format=4", f"flags={1 << 27}"]


def test_its_events_are_adopted_as_they_were_opened(launch: Launch, eventually: Eventually) -> None:
    client = launch()
    fd = client.open(SOFTWARE, CPU_CLOCK, 0, *FIELDS)
    assert client.ask(f"mmap {fd} 65536 r") == 0
    recording = adopt(client.process.pid, "taken")
    client.end()
    (event,) = recording.info.events
    assert event.event == "cpu-clock/period=3000000/"
    with perfkeep.reopen(event.id, 0) as again:
        assert (again.attr.sample_type, again.attr.read_format) == (0x10086, 4)
        before = again.read().value
        eventually(lambda: again.read().value > before + 10**8)
    assert recording.info.ring.kind == "backward"
    with recording.snapshot() as snapshot:
        assert sum(one.records for one in snapshot.coverage.cpus) > 10


def test_several_supervisors_each_know_their_own(launch: Launch) -> None:
    clients = [launch(), launch()]
    for period, client in enumerate(clients, 5):
        fd = client.open(SOFTWARE, CPU_CLOCK, 0, f"period={period}000000", "sample_type=6")
        assert client.ask(f"mmap {fd} 65536 r") == 0
    names = [adopt(client.process.pid).info.events[0].event for client in clients]
    assert names == ["cpu-clock/period=5000000/", "cpu-clock/period=6000000/"]
