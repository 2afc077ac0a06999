"""perfkeep.broker.registry: whatever is done to it, names and ids find what they should."""

from __future__ import annotations

import errno
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from perfkeep.broker.registry import Event, KindOfEvent, Recording, Registry, check_name
from perfkeep.errors import BrokerError
from perfkeep.kernel.fd import OwnedFd
from perfkeep.wire.messages import Kind, Owner, Ring, Target

KIND = Kind("cpu-clock", "cpu-clock", bytes(64))
OWNER = Owner(0, 0, 1, "test")
NO_FD = cast(OwnedFd, None)


def make_recording(id: int, name: str) -> Recording:
    return Recording(id, name, OWNER, Ring("backward", 4096), Target(), 0)


class AgainstADict(RuleBasedStateMachine):
    """A registry beside the plainest model of it: {name: {kind: {(cpu, kernel id)}}}."""

    names = Bundle("names")

    @initialize()
    def begin(self) -> None:
        self.registry = Registry()
        self.model: dict[str, dict[int, set[tuple[int, int]]]] = {}
        self.gone: set[int] = set()
        self.kernel_id = 0

    def kinds(self, cpus: list[int], count: int) -> list[KindOfEvent]:
        kinds = [KindOfEvent(id, KIND) for id in self.registry.allocate(count)]
        for kind in kinds:
            assert kind.id not in self.gone
            for cpu in cpus:
                self.kernel_id += 1
                kind.events.append(Event(cpu, NO_FD, self.kernel_id, b""))
        return kinds

    @staticmethod
    def modelled(kinds: list[KindOfEvent]) -> dict[int, set[tuple[int, int]]]:
        return {kind.id: {(event.cpu, event.kernel_id) for event in kind.events} for kind in kinds}

    @rule(
        target=names,
        name=st.sampled_from("abcd"),
        cpus=st.lists(st.integers(0, 3), min_size=1),
        count=st.integers(1, 3),
    )
    def start(self, name: str, cpus: list[int], count: int) -> object:
        kinds = self.kinds(cpus, count)
        recording = make_recording(kinds[0].id, name)
        for kind in kinds:
            recording.kinds[kind.id] = kind
        if name in self.model:
            with pytest.raises(BrokerError) as caught:
                self.registry.add(recording)
            assert caught.value.errno == errno.EEXIST
            self.gone |= {kind.id for kind in kinds}
            return multiple()
        self.registry.add(recording)
        self.model[name] = self.modelled(kinds)
        return name

    def get(self, name: str) -> Recording:
        found = self.registry.named(name)
        assert found is not None
        return found

    @rule(name=names, cpus=st.lists(st.integers(0, 3), min_size=1))
    def add_kind(self, name: str, cpus: list[int]) -> None:
        if name in self.model:
            (kind,) = self.kinds(cpus, 1)
            self.registry.add_kind(self.get(name), kind)
            self.model[name] |= self.modelled([kind])

    @rule(name=names, data=st.data())
    def remove_event(self, name: str, data: st.DataObject) -> None:
        if name not in self.model:
            return
        id = data.draw(st.sampled_from(sorted(self.model[name])))
        cpu, kernel_id = data.draw(st.sampled_from(sorted(self.model[name][id])))
        found = self.registry.by_kernel_id(kernel_id)
        assert found is not None
        self.registry.remove_event(*found)
        self.model[name][id].remove((cpu, kernel_id))
        if not self.model[name][id]:
            del self.model[name][id]
            self.gone.add(id)
        if not self.model[name]:
            del self.model[name]

    @rule(name=names, data=st.data())
    def remove_kind(self, name: str, data: st.DataObject) -> None:
        if name not in self.model:
            return
        id = data.draw(st.sampled_from(sorted(self.model[name])))
        self.registry.remove_kind(*self.registry.kind(id))
        del self.model[name][id]
        self.gone.add(id)
        if not self.model[name]:
            del self.model[name]

    @rule(name=consumes(names))
    def remove(self, name: str) -> None:
        if name in self.model:
            self.registry.remove(self.get(name))
            self.gone |= self.model.pop(name).keys()

    @invariant()
    def names_find_recordings_in_the_order_they_came(self) -> None:
        assert [one.name for one in self.registry] == list(self.model)
        assert len(self.registry) == len(self.model)
        for name in self.model:
            assert self.get(name).name == name

    @invariant()
    def ids_find_kinds_and_those_that_are_gone_find_none(self) -> None:
        for name, kinds in self.model.items():
            assert set(self.get(name).kinds) == set(kinds)
            for id in kinds:
                recording, kind = self.registry.kind(id)
                assert (recording.name, kind.id) == (name, id)
        for id in self.gone:
            with pytest.raises(BrokerError) as caught:
                self.registry.kind(id)
            assert caught.value.errno == errno.ENOENT

    @invariant()
    def kernel_ids_find_events(self) -> None:
        live = {
            kernel_id: (name, id, cpu)
            for name, kinds in self.model.items()
            for id, events in kinds.items()
            for cpu, kernel_id in events
        }
        assert self.registry.events == len(live)
        for kernel_id in range(1, self.kernel_id + 1):
            found = self.registry.by_kernel_id(kernel_id)
            assert (found and (found[0].name, found[1].id, found[2].cpu)) == live.get(kernel_id)


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_a_name_in_use_comes_with_the_way_out() -> None:
    registry = Registry()
    registry.add(make_recording(1, "flight"))
    with pytest.raises(BrokerError, match="exists already") as caught:
        registry.check_free("flight")
    assert caught.value.errno == errno.EEXIST
    assert caught.value.hint.endswith(" perfkeep claim flight")


@pytest.mark.parametrize("name", ["a", "A1", "_x", "x.y-z_0", "0x", "x" * 64])
def test_names_of_letters_digits_and_a_few_signs_are_taken(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "name", ["", "17", "-x", ".x", "a b", "a/b", "x" * 65, "ä", "a\n", "..", "٣"]
)
def test_names_that_do_not_fit_sysfs_or_a_command_line_are_refused(name: str) -> None:
    with pytest.raises(BrokerError) as caught:
        check_name(name)
    assert caught.value.errno == errno.EINVAL


@given(st.text())
def test_any_name_is_taken_or_refused_and_those_taken_are_file_names(name: str) -> None:
    try:
        check_name(name)
    except BrokerError:
        return
    assert name.isascii()
    assert "/" not in name
    assert 0 < len(name) <= 64
