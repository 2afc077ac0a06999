"""Damage in what a question does not need leaves its answer as it is."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("duckdb")

from perfkeep.abi.perf_data import HEADER, Feature
from perfkeep.abi.perf_event import Hardware, Sample, Software, Type
from perfkeep.cli.main import main
from perfkeep.formats.perf_data import reader
from perfkeep.formats.perf_data.features import string
from perfkeep.testing.assembler import Assembler, file_event, perf_file, perf_pipe, record

EVENT = Assembler(id=10, sample_type=Sample.IP | Sample.TID | Sample.TIME | Sample.ID)
SAMPLES = [EVENT.sample(time, ip=0x1000, pid=200, tid=200) for time in (10, 11)]
RECORDS = [EVENT.comm(200, 200, b"worker"), *SAMPLES]
CLOCK = [file_event("cpu-clock", EVENT.attr, 10)]
FEATURES = {Feature.HOSTNAME: string("host"), Feature.OSRELEASE: string("6.1")}


class Answer:
    """Output of `perfkeep script`: samples without their columns' widths, and the complaints."""

    def __init__(self, capfd: pytest.CaptureFixture[str], path: Path) -> None:
        assert main(["script", str(path)]) == 0
        out, errors = capfd.readouterr()
        self.samples = [" ".join(line.split()) for line in out.splitlines()]
        self.complaints = errors.splitlines()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_pipe_names_its_events_as_perf_does(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = Assembler(id=20, sample_type=EVENT.sample_type)
    cache = replace(EVENT.attr, type=Type.HARDWARE, config=Hardware.CACHE_REFERENCES)
    events = [file_event("", cache, 10), file_event("", EVENT.attr, 20)]
    records = [RECORDS[0], SAMPLES[0], other.sample(11, ip=0x1000, pid=200, tid=200)]
    path = write(tmp_path / "pipe.data", perf_pipe(events, records))
    names = [line.split()[4] for line in Answer(capfd, path).samples]
    assert names == ["cache-references:HG:", "cpu-clock:HG:"]


def test_a_feature_that_is_cut_off_leaves_the_samples(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "cut.data", perf_file(CLOCK, RECORDS, FEATURES)[:-30])
    answer = Answer(capfd, path)
    assert len(answer.samples) == 2
    assert all("cpu-clock:HG: 1000 [unknown]" in line for line in answer.samples)
    assert len(answer.complaints) == 1 and "EVENT_DESC" in answer.complaints[0]


@pytest.mark.parametrize("torn", [0, 12], ids=["at a record's end", "within a record"])
def test_a_file_that_perf_did_not_finish_is_read_to_its_last_whole_record(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], torn: int
) -> None:
    data = bytearray(perf_file(CLOCK, [*RECORDS, SAMPLES[0][:torn]], data_size=0, described=False))
    data[HEADER.size - 32] = 0xFC  # perf sets the bits of the features when it begins
    answer = Answer(capfd, write(tmp_path / "killed.data", bytes(data)))
    assert len(answer.samples) == 2
    assert len(answer.complaints) == 1
    assert "perf record did not end properly" in answer.complaints[0]
    assert ("12 bytes behind it are left out" in answer.complaints[0]) == (torn == 12)


def test_a_file_that_lost_its_end_is_read_to_its_last_whole_record(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = perf_file(CLOCK, RECORDS, described=False)
    path = write(tmp_path / "short.data", whole[:-8])
    answer = Answer(capfd, path)
    assert len(answer.samples) == 1 and len(answer.complaints) == 1
    assert "this file is cut off" in answer.complaints[0]


def test_a_finished_file_without_records_is_whole(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = Answer(capfd, write(tmp_path / "none.data", perf_file(CLOCK, [], FEATURES)))
    assert (answer.samples, answer.complaints) == ([], [])


@pytest.mark.parametrize("body", [b"", b"\0", string("a CPU")[:20]], ids=["no", "one", "few"])
def test_a_feature_with_too_few_bytes_is_empty(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], body: bytes
) -> None:
    path = write(tmp_path / "empty.data", perf_file(CLOCK, RECORDS, {Feature.CPUDESC: body}))
    out = tmp_path / "profile.json"
    assert main(["export", str(path), "--to", "firefox", "-o", str(out)]) == 0
    assert json.loads(out.read_text())["meta"]["oscpu"] is not None
    assert capfd.readouterr().out == f"written to {out}\n"
    assert len(Answer(capfd, path).samples) == 2


#: These say how the records themselves are stored.
STORAGE = {Feature.COMPRESSED, Feature.AUXTRACE}


@pytest.mark.parametrize("number", sorted(set(Feature) - STORAGE))
def test_no_feature_of_random_bytes_stands_between_a_person_and_the_samples(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], number: Feature
) -> None:
    body = bytes(range(7, 250, 3))
    path = write(tmp_path / "odd.data", perf_file(CLOCK, RECORDS, {number: body}))
    assert len(Answer(capfd, path).samples) == 2
    assert main(["report", str(path)]) == 0
    assert "worker" in capfd.readouterr().out


def test_a_tracepoint_without_its_format_keeps_its_number(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    event = file_event("", replace(EVENT.attr, type=Type.TRACEPOINT, config=314), 10)
    path = write(tmp_path / "point.data", perf_pipe([event], RECORDS))
    assert all(" tracepoint:314:" in line for line in Answer(capfd, path).samples)


def test_build_ids_in_a_pipe_are_read() -> None:
    entry = record(67, b"\xff\xff\xff\xff" + bytes(range(20)) + b"\x14\0\0\0" + b"/bin/x\0\0")
    parsed = reader.parse(memoryview(perf_pipe(CLOCK, [*RECORDS, entry, entry])))
    assert bytes(parsed.features[Feature.BUILD_ID]) == 2 * entry


def test_records_of_perf_that_end_within_a_word_leave_those_behind_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    odd = struct.pack("=IHH", 67, 0, 13) + b"/bin\0"  # as perf inject -b writes build ids
    path = write(tmp_path / "inject.data", perf_file(CLOCK, [odd, *RECORDS]))
    answer = Answer(capfd, path)
    assert len(answer.samples) == 2 and not answer.complaints
    assert main(["report", str(path)]) == 0
    assert capfd.readouterr().out.splitlines()[1].split() == ["100.0%", "worker", "200", "2"]
    out = tmp_path / "plain.data"
    assert main(["export", str(path), "--to", "perf.data", "-o", str(out)]) == 0
    assert bytes(reader.read(str(out)).data) == b"".join(RECORDS)


def directory(path: Path, parts: Sequence[bytes]) -> Path:
    path.mkdir()
    features = {Feature.DIR_FORMAT: b"\1" + bytes(7)}
    write(path / "data", perf_file(CLOCK, RECORDS[:1], features))
    for number, part in enumerate(parts):
        write(path / f"data.{number}", part)
    write(path / "notes", b"not a part of it")
    return path


def test_a_directory_of_perf_record_threads_is_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = directory(tmp_path / "threads.data", SAMPLES)
    answer = Answer(capfd, path)
    assert len(answer.samples) == 2 and not answer.complaints
    assert all(line.startswith("worker 200 ") for line in answer.samples)
    assert main(["report", str(path)]) == 0
    assert capfd.readouterr().out.splitlines()[1].split() == ["100.0%", "worker", "200", "2"]
    out = tmp_path / "plain.data"
    assert main(["export", str(path), "--to", "perf.data", "-o", str(out)]) == 0
    assert capfd.readouterr().out == f"written to {out}\n"
    assert Answer(capfd, out).samples == answer.samples


def test_one_file_of_a_directory_says_where_the_samples_lie(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = Answer(capfd, directory(tmp_path / "threads.data", SAMPLES) / "data")
    assert not answer.samples
    assert len(answer.complaints) == 1
    assert "samples lie in the files data.0, data.1" in answer.complaints[0]


def test_a_directory_without_a_header_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["script", str(tmp_path)]) == 2
    assert "a directory without a file data" in capfd.readouterr().err


@given(st.data())
def test_a_file_that_is_cut_anywhere_behind_its_attrs_gives_its_whole_records(
    data: st.DataObject,
) -> None:
    whole = perf_file(CLOCK, RECORDS, FEATURES)
    begin = reader.parse(memoryview(whole)).data_at
    length = data.draw(st.integers(begin, len(whole)))
    parsed = reader.parse(memoryview(whole[:length]))
    fitting = b"".join(RECORDS)[: length - begin]
    found = [bytes(one) for _, one in parsed.records()]
    expected = []
    for one in RECORDS:
        if fitting.startswith(one):
            expected.append(one)
            fitting = fitting[len(one) :]
        else:
            break
    assert found == expected
    assert length == len(whole) or parsed.problems


def test_a_software_event_of_a_pmu_that_is_not_known_is_named_by_its_numbers() -> None:
    attr = replace(EVENT.attr, type=77, config=Software.PAGE_FAULTS)
    parsed = reader.parse(memoryview(perf_pipe([file_event("", attr, 10)], RECORDS)))
    assert parsed.events[0].name == "77:0x2:HG"
