"""The times at which openers are sent for what is missing from recordings: a pure model with a fake opener."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Attr
from perfkeep.broker.absence import Absence
from perfkeep.broker.recordings import Recordings
from perfkeep.broker.registry import KindOfEvent, Recording, Registry
from perfkeep.kernel import cpus
from perfkeep.wire.messages import Kind, Owner, Ring, Target


def ended(registry: Registry, id: int) -> Recording:
    """A recording of a process that has ended: nothing opens its events again."""
    ring = Ring("backward", 65536)
    recording = Recording(id, f"r{id}", Owner(0, 0, 1, "x"), ring, Target([id]), 0)
    recording.cpus = [0]
    kind = KindOfEvent(id, Kind("cpu-clock", "cpu-clock", Attr().pack()))
    recording.kinds[id] = kind
    registry.add(recording)
    return recording


class Openers:
    """Absence with openers that are sent, and that all fail."""

    def __init__(self, recordings: int) -> None:
        registry = Registry()
        self.all = {id: ended(registry, id) for id in range(1, recordings + 1)}
        self.on_their_way: list[int] = []
        self.sent = 0
        fake = SimpleNamespace(registry=registry, remember=lambda recording: None)
        self.absence = Absence(cast(Recordings, fake), self._send, lambda event, name, why: None)

    def _send(self, recording: Recording) -> None:
        self.on_their_way.append(recording.id)
        self.sent += 1

    def fail_all(self, most: int) -> None:
        """Every opener comes back with nothing, and those sent for that as well."""
        for _ in range(most):
            if not self.on_their_way:
                return
            id = self.on_their_way.pop(0)
            self.absence.done(self.all[id], id, "process has ended")


@pytest.fixture(autouse=True)
def _one_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "online", lambda: (0,))
    monkeypatch.setattr(cpus, "possible", lambda: frozenset({0}))


def test_recordings_that_cannot_be_opened_again_do_not_send_openers_for_each_other() -> None:
    openers = Openers(2)
    openers.absence.look()
    openers.absence.look()  # a CPU changed meanwhile
    openers.fail_all(100)
    assert openers.on_their_way == [] and openers.sent == 4


@given(st.lists(st.sampled_from(["look", "fail"]), max_size=30), st.integers(1, 5))
def test_each_change_of_a_cpu_sends_at_most_one_opener_for_a_recording(
    steps: list[str], recordings: int
) -> None:
    openers = Openers(recordings)
    for step in steps:
        if step == "look":
            openers.absence.look()
        else:
            openers.fail_all(1)
    openers.fail_all(10_000)
    assert openers.on_their_way == []
    assert openers.sent <= recordings * steps.count("look")
    assert "look" not in steps or openers.sent >= recordings
