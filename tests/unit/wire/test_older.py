"""perfkeep.wire.older: values of a version whose targets were text are read as structs."""

from __future__ import annotations

import json
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.broker import state
from perfkeep.broker.registry import KindOfEvent, Recording
from perfkeep.broker.remembered import RecordingValue, value_of
from perfkeep.wire import older, spill
from perfkeep.wire.messages import (
    EventInfo,
    Kind,
    KindInSnapshot,
    Owner,
    Program,
    RecordingInfo,
    Recordings,
    Ring,
    Target,
)

TARGETS = [
    ("all tasks", Target()),
    ("CPU 3", Target()),
    ("pid 17", Target(pids=[17])),
    ("cgroup /a b", Target(cgroup="/a b")),
    ("as opened by process 9 (perf (1))", Target(program=Program(9, "perf (1)"))),
]
KIND = Kind("cpu-clock", "cpu-clock", bytes(range(136)))
INFO = RecordingInfo(
    "n", 3, "running", 0, Owner(0, 0, 17, "c"), 0o600, 0, Ring("backward", 4096), Target(),
    [EventInfo(3, "cpu-clock", [0, 1])],
)  # fmt: skip


def recording(target: Target) -> Recording:
    made = Recording(3, "n", Owner(5, 6, 7, "cmd"), Ring("backward", 65536), target, 99)
    made.kinds = {3: KindOfEvent(3, KIND)}
    return made


def with_text(value: msgspec.Struct, text: str) -> bytes:
    """The JSON of a value, its target as the version before wrote it."""
    document = json.loads(msgspec.json.encode(value))
    place = document.get("recording") or document.get("recordings", [document])[0]
    place["target"] = text
    return json.dumps(document).encode()


@pytest.mark.parametrize(("text", "target"), TARGETS)
def test_a_keepers_value_of_the_version_before_is_read(text: str, target: Target) -> None:
    value = value_of(recording(target))
    assert older.decode(with_text(value, text), RecordingValue) == value
    assert older.decode(msgspec.json.encode(value), RecordingValue) == value


@pytest.mark.parametrize(("text", "target"), TARGETS)
def test_a_definition_of_the_version_before_is_read(text: str, target: Target) -> None:
    file = json.loads(state.encode(recording(target), 9))
    file["definition"]["recording"]["target"] = text
    definition = json.dumps(file["definition"]).encode()
    file["crc32"] = zlib.crc32(definition)
    data = json.dumps({**file, "definition": None}).encode()
    _, next_id, restored = state.decode(data.replace(b"null", definition))
    assert next_id == 9 and restored.target == target
    assert restored.kinds[3].kind == KIND


def test_a_crash_copy_of_the_version_before_is_read() -> None:
    meta = spill.Meta(1, "boot", INFO, [KindInSnapshot(3, KIND, {0: [7], 1: [8]})])
    read = older.decode(with_text(meta, "pid 17"), spill.Meta)
    assert read.recording.target == Target(pids=[17]) and read.kinds == meta.kinds


def test_an_instance_of_the_version_before_can_be_listed() -> None:
    answer = with_text(Recordings([INFO]), "cgroup /x")
    assert older.decode(answer, Recordings).recordings[0].target == Target(cgroup="/x")


@pytest.mark.parametrize("data", [b"[1]", b"{}", b'{"target": "pid 17"}', b'{"target": 5}'])
def test_a_value_of_no_version_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        older.decode(data, RecordingValue)


@given(st.text(max_size=60))
def test_any_text_is_a_target(text: str) -> None:
    target = older.target_of(text)
    assert msgspec.json.decode(msgspec.json.encode(target), type=Target) == target


@given(st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=3))
def test_a_target_is_worded_in_one_line(pids: list[int]) -> None:
    assert str(Target(pids=pids)) == "pid " + ",".join(str(pid) for pid in pids)
