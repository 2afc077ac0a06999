"""perfkeep.analysis.samples and .script: samples one by one, as objects and as lines."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numpy")

from perfkeep.abi.perf_event import Sample
from perfkeep.analysis.data import Data
from perfkeep.analysis.script import Wanted, lines, objects
from perfkeep.errors import UsageError
from perfkeep.formats.arrow import ArrowTable
from perfkeep.formats.perf_data.event import EventDesc
from perfkeep.formats.perf_data.reader import PerfData
from perfkeep.testing.assembler import PLAIN, Assembler

FORMAT = """
	field:long state;	offset:8;	size:8;	signed:1;
	field:char name[8];	offset:16;	size:8;	signed:0;

print fmt: "state=%s name=%s", __print_symbolic(REC->state, { 1, "S" }), REC->name
"""
TRACED = Assembler(1, PLAIN | Sample.RAW)
CLOCK = Assembler(2, PLAIN)


def traced(time: int, name: bytes, tid: int = 7) -> bytes:
    return TRACED.sample(time, tid=tid, raw=bytes(8) + struct.pack("=q8s", 1, name))


def data_of(*records: bytes) -> Data:
    events = [
        EventDesc("x:traced", TRACED.attr, {0: [1]}, ("x", "traced", 1, FORMAT)),
        EventDesc("cpu-clock", CLOCK.attr, {0: [2]}, None),
    ]
    return Data(PerfData(events, memoryview(b"".join(records)), 0, {}))


def some() -> Data:
    return data_of(
        traced(3_000_000_123, b"c"), CLOCK.sample(2_000_000_000, tid=8), traced(1_000, b"a")
    )


def test_samples_come_in_the_order_of_time_across_events() -> None:
    found = list(some().samples())
    assert [one.event for one in found] == ["x:traced", "cpu-clock", "x:traced"]
    assert [one.time for one in found] == [1_000, 2_000_000_000, 3_000_000_123]
    assert [one.tid for one in found] == [7, 8, 7]


def test_a_sample_is_a_mapping_of_its_typed_fields() -> None:
    one, other = some().samples("traced")
    assert (one["state"], one["name"], other["name"]) == (1, "a", "c")
    assert one.text == "state=S name=a"
    assert one.called("state") == "S" and one.called("name") is None
    assert dict(one)["time"] == one.time and len(dict(one)) == len(one)
    assert "missing" not in one and one != other
    with pytest.raises(KeyError):
        one["missing"]
    with pytest.raises(UsageError, match="no table 'nothing'"):
        some().samples("nothing")


def test_a_line_is_like_that_of_perf_script() -> None:
    first, second, _ = lines(some(), Wanted("tid,time,event,trace"))
    assert first == "    7     0.000001:  x:traced: state=S name=a\n"
    assert second == "    8     2.000000: cpu-clock: \n"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted("time", nanoseconds=True), "0.000001000: "),
        (Wanted("event", events=["cpu_clock"]), "cpu-clock: "),
        (Wanted("tid", only={"tid": [8]}), "8 "),
        (Wanted("comm", only={"comm": [":8"]}), ":8 "),
        (Wanted("-comm,-tid,-pid,-cpu,-time,-ip,-sym,-symoff,-dso,-period", ["traced"]),
         "x:traced: state=S name=a"),
        (Wanted("pid,tid", only={"tid": [8], "cpu": [99]}), None),
    ],
)  # fmt: skip
def test_what_is_shown_and_of_which_samples_can_be_chosen(
    wanted: Wanted, expected: str | None
) -> None:
    found = next(lines(some(), wanted), None)
    assert found == expected or (found or "").strip() == (expected or "").strip()


@pytest.mark.parametrize("fields", ["what", "comm,+tid", "sym", "weight"])
def test_fields_that_make_no_sense_are_refused(fields: str) -> None:
    with pytest.raises(UsageError):
        lines(some(), Wanted(fields))


def test_an_object_has_all_typed_fields_and_the_text() -> None:
    first, *_ = objects(some(), Wanted())
    document = json.loads(first)
    assert (document["event"], document["time"], document["tid"]) == ("x:traced", 1000, 7)
    assert document["fields"]["state"] == 1 and document["fields"]["state_name"] == "S"
    assert document["text"] == "state=S name=a"


def test_a_name_cannot_command_the_terminal() -> None:
    (line,) = lines(data_of(traced(1, b"\x1b[2J\n")), Wanted("trace"))
    assert line == "state=S name=?[2J?\n"


def test_sql_has_the_names_beside_the_numbers_and_arrow_does_not_unless_asked() -> None:
    pytest.importorskip("duckdb")
    data = some()
    assert data.sql("SELECT state, state_name FROM traced").fetchall() == [(1, "S"), (1, "S")]
    raw = data.to_arrow("traced")
    assert isinstance(raw, ArrowTable) and "state_name" not in raw.column_names
    assert "state_name" in data.with_names("traced").column_names


def test_a_file_without_samples_has_no_lines() -> None:
    assert list(lines(data_of(), Wanted())) == []
    assert list(data_of().samples()) == []


@given(kinds=st.sets(st.sampled_from([Sample.TID, Sample.TIME, Sample.IP, Sample.CALLCHAIN])))
def test_what_was_not_recorded_is_not_shown(kinds: set[Sample]) -> None:
    event = Assembler(2, Sample(sum(kinds)) | Sample.IDENTIFIER)
    desc = EventDesc("cpu-clock", event.attr, {0: [2]}, None)
    sample = event.sample(5, tid=8, ip=0x1000, callchain=[0x1000, 0x2000])
    data = Data(PerfData([desc], memoryview(sample), 0, {}))
    (line,) = lines(data, Wanted())
    assert ("1000" in line) == (Sample.IP in kinds or {Sample.CALLCHAIN, Sample.TID} <= kinds)
    (text,) = objects(data, Wanted())
    assert json.loads(text)["event"] == "cpu-clock"
