"""perfkeep.broker.state: what is written comes back, and what is not whole does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.broker.registry import KindOfEvent, Recording, Registry
from perfkeep.broker.remembered import value_of
from perfkeep.broker.state import State, Unusable, decode, encode
from perfkeep.kernel.sysctl import boot_id
from perfkeep.wire.messages import Gap, Kind, Owner, Ring, Target


def make(id: int = 3, name: str = "flight") -> Recording:
    made = Recording(id, name, Owner(5, 6, 7, "cmd"), Ring("backward", 65536), Target(), 99)
    made.kinds = {
        number: KindOfEvent(number, Kind("cpu-clock", "cpu-clock", bytes(136), None, "x > 1"))
        for number in (id, id + 1)
    }
    made.mode, made.enabled, made.cpus, made.every_cpu = 0o640, True, [0, 1], True
    made.gaps = [Gap(1, 2, "why", [1])]
    made.expires_ns = 12345
    return made


def test_what_is_saved_is_loaded_as_it_was(tmp_path: Path) -> None:
    state, registry = State(str(tmp_path / "state")), Registry()
    registry.next_id = 17
    for id, name in ((5, "a"), (3, "z")):
        state.save(make(id, name), registry)
    found = state.load()
    assert [(next_id, one.name) for next_id, one in found] == [(17, "z"), (17, "a")]
    for _, recording in found:
        wanted = make(recording.id, recording.name)
        assert value_of(recording) == value_of(wanted)
        assert [k.kind for k in recording.kinds.values()] == [k.kind for k in wanted.kinds.values()]
    assert not state.problems
    assert state.bytes > 1000


def test_only_the_owner_can_look_into_it(tmp_path: Path) -> None:
    state = State(str(tmp_path / "state"))
    before = os.umask(0)
    try:
        state.save(make(), Registry())
    finally:
        os.umask(before)
    for path in (tmp_path / "state").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_what_is_forgotten_is_gone_and_what_was_left_half_written_as_well(tmp_path: Path) -> None:
    state = State(str(tmp_path))
    state.save(make(), Registry())
    (tmp_path / "recordings" / "other.json.new").write_text("{")
    state.forget("flight")
    state.forget("never there")
    assert not state.load()
    assert not list((tmp_path / "recordings").iterdir())
    assert not state.problems


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    state = State(str(tmp_path))
    state.save(make(), Registry())
    path = tmp_path / "recordings" / "flight.json"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert not state.load()
    assert "was not loaded" in state.problems[str(path)]


def test_a_file_under_another_name_is_not_loaded(tmp_path: Path) -> None:
    state = State(str(tmp_path))
    state.save(make(), Registry())
    path = tmp_path / "recordings" / "flight.json"
    path.rename(path.with_name("fleet.json"))
    assert not state.load()
    assert state.problems


@given(st.data())
def test_a_definition_with_any_byte_changed_is_never_loaded(data: st.DataObject) -> None:
    text = bytearray(encode(make(), 17))
    at = data.draw(st.integers(0, len(text) - 1))
    before = text[at]
    text[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != before))
    try:
        boot, next_id, recording = decode(bytes(text))
    except Unusable:
        return
    # Only white space, or what no one reads, can have changed.
    assert (boot, next_id) == (boot_id(), 17)
    assert value_of(recording) == value_of(make())


@given(st.integers(0, 3000))
def test_a_definition_that_was_cut_short_is_never_loaded(length: int) -> None:
    text = encode(make(), 17)
    if length < len(text):
        with pytest.raises(Unusable):
            decode(text[:length])


@given(st.binary(max_size=200))
def test_anything_else_is_refused_in_words(text: bytes) -> None:
    with pytest.raises(Unusable) as caught:
        decode(text)
    assert str(caught.value)
