"""Names of events in sysfs."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from perfkeep.broker.registry import KindOfEvent, Recording, Registry
from perfkeep.broker.sysfs import SysfsView, entries, entry_name
from perfkeep.wire.messages import Kind, Owner, Ring, Target

NAMES = ["flight", "my-name", "my_name", "sched", "_x"]
KINDS = ["cs", "CS", "a:b", "a_b", "a.b", "x/y/u"]


def kind(id: int, name: str) -> KindOfEvent:
    return KindOfEvent(id, Kind(name, name, bytes(64)))


def recording(id: int, name: str) -> Recording:
    """One without events yet."""
    return Recording(id, name, Owner(0, 0, 1, ""), Ring("backward", 4096), Target(), 0)


@given(st.text(min_size=1))
def test_any_name_becomes_one_that_perf_s_parser_takes(text: str) -> None:
    name = entry_name(text)
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name)
    assert not name.endswith((".scale", ".unit", ".per-pkg", ".snapshot"))
    assert name.lower() not in ("name", "period", "config", "id")


@pytest.mark.parametrize("name", ["flight", "my_name", "a.b", "cycles", "_x"])
def test_a_name_that_perf_takes_stays(name: str) -> None:
    assert entry_name(name) == name


def test_what_an_ioctl_made_persistent_has_its_number_and_a_name_for_perf() -> None:
    assert entries(recording(5, "5"), kind(5, "cpu-clock")) == ["5", "_5"]


class Names(RuleBasedStateMachine):
    """Recordings start and end, kinds of event join and leave, and brokers are replaced: a name
    means one kind as long as that kind is there, and each kind has one in letters for perf."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="perfkeep-names-")
        self.registry = Registry()
        self.meant: dict[str, int] = {}
        self.next_broker()

    @rule()
    def next_broker(self) -> None:
        self.view = SysfsView(self.folder.name)
        self.view.show_all(self.registry)

    @rule(name=st.sampled_from(NAMES), kinds=st.lists(st.sampled_from(KINDS), min_size=1))
    def start(self, name: str, kinds: list[str]) -> None:
        if self.registry.named(name) is not None:
            return
        ids = self.registry.allocate(len(kinds))
        new = recording(ids[0], name)
        new.kinds = {id: kind(id, text) for id, text in zip(ids, kinds, strict=True)}
        self.registry.add(new)
        self.view.update(new)

    @rule(data=st.data(), text=st.sampled_from(KINDS))
    def join(self, data: st.DataObject, text: str) -> None:
        if recordings := list(self.registry):
            chosen = data.draw(st.sampled_from(recordings))
            (id,) = self.registry.allocate(1)
            self.registry.add_kind(chosen, kind(id, text))
            self.view.update(chosen)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if recordings := [one for one in self.registry if len(one.kinds) > 1]:
            chosen = data.draw(st.sampled_from(recordings))
            gone = data.draw(st.sampled_from(list(chosen.kinds.values())))
            self.registry.remove_kind(chosen, gone)
            self.view.update(chosen)

    @invariant()
    def names_mean_what_they_meant(self) -> None:
        folder = Path(self.folder.name) / "persistent/events"
        names = {
            path.name: int(path.read_text().split(",")[0].removeprefix("id="), 16)
            for path in folder.iterdir()
        }
        there = {id for one in self.registry for id in one.kinds}
        assert set(names.values()) == there
        assert len({name.lower() for name in names}) == len(names)
        assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name) for name in names)
        for name, id in self.meant.items():
            assert id not in there or names.get(name) == id
        self.meant = names

    def teardown(self) -> None:
        self.folder.cleanup()


TestNames = Names.TestCase
TestNames.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)
