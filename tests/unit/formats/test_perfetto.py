"""A file as a Perfetto trace, read by Perfetto's published protos."""

from __future__ import annotations

import struct
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("perfetto")
from hypothesis import given
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as protos

from perfkeep.abi.perf_data import Feature
from perfkeep.abi.perf_event import Flag, Sample, Type
from perfkeep.analysis.data import Data
from perfkeep.analysis.trace import trace
from perfkeep.formats.perf_data.event import EventDesc
from perfkeep.formats.perf_data.reader import PerfData
from perfkeep.formats.perfetto import Instant, Instants
from perfkeep.testing.assembler import PLAIN, Assembler

SWITCH = """
	field:char prev_comm[16];	offset:8;	size:16;	signed:0;
	field:pid_t prev_pid;	offset:24;	size:4;	signed:1;
	field:int prev_prio;	offset:28;	size:4;	signed:1;
	field:long prev_state;	offset:32;	size:8;	signed:1;
	field:char next_comm[16];	offset:40;	size:16;	signed:0;
	field:pid_t next_pid;	offset:56;	size:4;	signed:1;
	field:int next_prio;	offset:60;	size:4;	signed:1;
"""
WAKING = """
	field:char comm[16];	offset:8;	size:16;	signed:0;
	field:pid_t pid;	offset:24;	size:4;	signed:1;
	field:int prio;	offset:28;	size:4;	signed:1;
	field:int target_cpu;	offset:32;	size:4;	signed:1;
"""
OTHER = """
	field:char what[8];	offset:8;	size:8;	signed:0;
	field:u64 size;	offset:16;	size:8;	signed:0;
"""
EVENTS = {
    "sched:sched_switch": (Assembler(1, PLAIN | Sample.RAW), SWITCH),
    "sched:sched_waking": (Assembler(2, PLAIN | Sample.RAW), WAKING),
    "x:other": (Assembler(3, PLAIN | Sample.RAW), OTHER),
    "cpu-clock": (Assembler(4, PLAIN | Sample.CALLCHAIN), ""),
}


def raw(name: str, time: int, tid: int, form: str, *values: Any) -> bytes:
    return EVENTS[name][0].sample(time, pid=5, tid=tid, raw=bytes(8) + struct.pack(form, *values))


def data_of(*records: bytes) -> Data:
    events = []
    for at, (name, (one, form)) in enumerate(EVENTS.items()):
        system, _, plain = name.partition(":")
        point = (system, plain, at, form) if form else None
        attr = one.attr
        if form:
            attr = type(attr)(
                type=Type.TRACEPOINT, sample_type=attr.sample_type, sample_period=1,
                flags=Flag.SAMPLE_ID_ALL,
            )  # fmt: skip
        # What an event is called need not be what its tracepoint is.
        shown = f"{name}:k" if system == "sched" else name
        events.append(EventDesc(shown, attr, {0: [one.id]}, point))
    features: dict[Feature | int, memoryview] = {
        Feature.CLOCK_DATA: memoryview(struct.pack("=IIQQ", 1, 1, 10**18, 0))
    }
    return Data(PerfData(events, memoryview(b"".join(records)), 0, features))


def read(packets: Any) -> Any:
    found = protos.Trace()
    found.ParseFromString(b"".join(packets))
    return found.packet


DATA = data_of(
    EVENTS["x:other"][0].comm(5, 6, b"worker"),
    raw("sched:sched_switch", 100, 6, "=16siiq16sii", b"worker", 6, 120, 2, b"sh", 7, 100),
    raw("sched:sched_waking", 200, 6, "=16siii", b"worker", 6, 120, 1),
    raw("x:other", 300, 6, "=8sQ", b"hello", 2**63),
    raw("x:other", 310, 0, "=8sQ", b"idle", 2),
    EVENTS["cpu-clock"][0].sample(400, pid=5, tid=6, callchain=(2**64 - 512, 0x10, 0x20)),
    EVENTS["cpu-clock"][0].sample(500, pid=5, tid=6, callchain=(2**64 - 512, 0x10, 0x20)),
)


def test_the_scheduler_is_told_as_ftrace_tells_it() -> None:
    (switch,), (waking,) = (
        [one.ftrace_events.event[0] for one in read(trace(DATA)) if one.HasField("ftrace_events")
         and one.ftrace_events.event[0].HasField(name)]
        for name in ("sched_switch", "sched_waking")
    )  # fmt: skip
    assert (switch.timestamp, switch.pid) == (100, 6)
    found = switch.sched_switch
    assert (found.prev_comm, found.prev_pid, found.prev_prio, found.prev_state) == (
        "worker", 6, 120, 2,
    )  # fmt: skip
    assert (found.next_comm, found.next_pid, found.next_prio) == ("sh", 7, 100)
    woken = waking.sched_waking
    assert (waking.timestamp, woken.comm, woken.pid, woken.target_cpu) == (200, "worker", 6, 1)


def test_samples_have_their_stacks_from_the_outermost_frame() -> None:
    packets = read(trace(DATA))
    (begin,) = (one for one in packets if one.interned_data.callstacks)
    known = begin.interned_data
    names = {one.iid: one.str.decode() for one in known.function_names}
    frames = {one.iid: names[one.function_name_id] for one in known.frames}
    stacks = {one.iid: [frames[at] for at in one.frame_ids] for one in known.callstacks}
    assert {one.mapping_id for one in known.frames} <= {one.iid for one in known.mappings}
    assert begin.trace_packet_defaults.perf_sample_defaults.timebase.name == "cpu-clock"
    samples = [one for one in packets if one.HasField("perf_sample")]
    assert {one.trusted_packet_sequence_id for one in samples} == {begin.trusted_packet_sequence_id}
    assert [
        (one.timestamp, one.perf_sample.pid, one.perf_sample.tid, one.perf_sample.timebase_count,
         stacks[one.perf_sample.callstack_iid])
        for one in samples
    ] == [(400, 5, 6, 1, ["0x20", "0x10"]), (500, 5, 6, 2, ["0x20", "0x10"])]  # fmt: skip


def test_other_events_are_instants_with_their_fields_on_their_threads() -> None:
    packets = read(trace(DATA))
    tracks = {
        one.track_descriptor.uuid: one.track_descriptor.thread.thread_name
        or one.track_descriptor.name
        for one in packets
        if one.HasField("track_descriptor")
    }
    names: dict[int, str] = {}
    fields: dict[int, str] = {}
    found = []
    for one in packets:
        names |= {name.iid: name.name for name in one.interned_data.event_names}
        fields |= {name.iid: name.name for name in one.interned_data.debug_annotation_names}
        if one.HasField("track_event"):
            event = one.track_event
            values = {
                fields[field.name_iid]: getattr(field, field.WhichOneof("value"))
                for field in event.debug_annotations
            }
            found.append((one.timestamp, names[event.name_iid], tracks[event.track_uuid], values))
    assert found == [
        (300, "x:other", "worker", {"what": "hello", "size": 2**63}),
        (310, "x:other", "idle CPU 0", {"what": "idle", "size": 2}),
    ]


def test_threads_have_names_and_times_their_wall_clock() -> None:
    packets = read(trace(DATA))
    (tree,) = (one.process_tree for one in packets if one.HasField("process_tree"))
    assert [(one.tid, one.tgid, one.name) for one in tree.threads] == [(6, 5, "worker")]
    assert [one.pid for one in tree.processes] == [5]
    (clocks,) = (one.clock_snapshot for one in packets if one.HasField("clock_snapshot"))
    realtime, boottime = protos.BUILTIN_CLOCK_REALTIME, protos.BUILTIN_CLOCK_BOOTTIME
    at = {one.clock_id: one.timestamp for one in clocks.clocks}
    assert at[realtime] - at[boottime] == 10**18


def test_one_event_can_be_asked_for() -> None:
    kinds = {one.WhichOneof("data") for one in read(trace(DATA, "other"))}
    assert "track_event" in kinds and not kinds & {"perf_sample", "ftrace_events"}


wide = st.integers(-(2**63), 2**64 - 1)
values = wide | st.text() | st.binary() | st.lists(wide)
instants = st.builds(
    Instant, st.integers(0, 2**63), st.integers(0, 9), st.integers(0, 2**31 - 1),
    st.integers(0, 2**31 - 1), st.text(), st.dictionaries(st.text(), values),
)  # fmt: skip


@given(st.lists(instants))
def test_whatever_an_event_holds_the_trace_is_read(some: list[Instant]) -> None:
    found = [one for one in read(Instants().write(some)) if one.HasField("track_event")]
    assert [one.timestamp for one in found] == [one.time for one in some]
    for one, instant in zip(found, some, strict=True):
        assert len(one.track_event.debug_annotations) == len(instant.fields)
