"""`perfkeep convert`: of a file with persistent events, stock perf prints what it prints of the
same file with the real ones, and has nothing to complain of.

The files are made by stock perf, with real events. Then their attrs are made those of persistent
events, as `perfkeep exec` leaves them, and the formats of tracepoints are taken out.
"""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import perfkeep
from perfkeep.abi.perf_data import HEADER, SECTION, Feature
from perfkeep.abi.perf_event import PERF_TYPE_PERSISTENT
from perfkeep.cli.main import main
from perfkeep.client.connection import call
from perfkeep.errors import BrokerError
from perfkeep.formats.perf_data import reader
from perfkeep.formats.perf_data.tracing import parse_tracing_data, tracing_data
from perfkeep.kernel import tracefs as tracing
from perfkeep.testing.requirements import perf_events, perf_tool, requires, root, tracefs
from perfkeep.wire.messages import EventId, EventShown
from support.commands import perf

pytestmark = requires(perf_events, tracefs, perf_tool, root)

SWITCH, WAKEUP = "sched:sched_switch", "sched:sched_wakeup"
Ran = tuple[int, str, str]


def record(path: Path, *options: str) -> bytes:
    """What stock perf records of a process that starts others."""
    events = options or ("-e", SWITCH)
    perf("record", "-q", "-a", "-o", str(path), *events, "--", "sh", "-c", "true; true; true")
    return path.read_bytes()


def persistent(data: bytes, ids: dict[str, int]) -> bytes:
    """The file as if the tracepoints of these names had been persistent events: in the attrs and
    in the description, and without their formats."""
    made = bytearray(data)
    got = reader.parse(memoryview(data))
    _, _, each, attrs_at, *_ = HEADER.unpack_from(data)
    for place, event in enumerate(got.events):
        if event.name in ids:
            attr = data[attrs_at + place * each :][: each - SECTION.size]
            wanted = struct.pack("=IIQ", PERF_TYPE_PERSISTENT, *struct.unpack_from("=I", attr, 4),
                                 ids[event.name])  # fmt: skip
            assert data.count(attr) == 2
            for _ in range(2):
                at = made.index(attr)
                made[at : at + 16], made[at + 56 : at + 64] = wanted, struct.pack("=Q", 1)
    left = [
        one
        for one in parse_tracing_data(got.features[Feature.TRACING_DATA])
        if f"{one[0]}:{one[1]}" not in ids
    ]
    return with_tracing(bytes(made), tracing_data(left) if left else None)


def with_tracing(data: bytes, section: bytes | None) -> bytes:
    """The file with another TRACING_DATA, or with none; the table keeps its place."""
    *fields, data_at, data_size, events_at, events_size, bitmap = HEADER.unpack_from(data)
    at = data_at + data_size
    numbers = [n for n in range(256) if int.from_bytes(bitmap, "little") >> n & 1]
    assert numbers[0] == Feature.TRACING_DATA
    size = SECTION.size * len(numbers)
    table = data[at + SECTION.size : at + size]
    if section is None:
        numbers, table = numbers[1:], table + bytes(SECTION.size)
    else:
        table = SECTION.pack(len(data), len(section)) + table
    bits = sum(1 << number for number in numbers).to_bytes(32, "little")
    head = HEADER.pack(*fields, data_at, data_size, events_at, events_size, bits)
    return head + data[HEADER.size : at] + table + data[at + size :] + (section or b"")


def start(*events: str) -> dict[str, int]:
    """A recording; the ids of its events by their names."""
    recording = perfkeep.start("flight", list(events), ring="64K")
    return {event.event: event.id for event in recording.info.events}


@pytest.fixture
def convert(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def run(*words: object) -> Ran:
        capsys.readouterr()
        try:
            code = main(["convert", *map(str, words)])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    return run


def refused(ran: Ran, code: int, says: str) -> None:
    """The exit code, and one sentence: of a failure alone, or with usage and hint."""
    assert ran[:2] == (code, "") and ran[2].count("perfkeep: ") == 1 and says in ran[2]
    assert ran[2].startswith("usage: " if code == 2 else "perfkeep: ")


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return tmp_path / "original.data"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "perf.data"


# --- what perf prints -------------------------------------------------------------------------


def test_perf_prints_of_the_converted_file_what_it_prints_of_the_real_events(
    instance: Path, convert: Callable[..., Ran], original: Path, file: Path, tmp_path: Path
) -> None:
    ids = start(SWITCH)
    file.write_bytes(persistent(record(original), ids))
    assert "prev_comm=" not in perf("script", "-i", str(file))
    out = tmp_path / "out.data"
    code, said, err = convert(file, "-o", out)
    assert (code, err) == (0, "")
    assert said == f"event {ids[SWITCH]} is {SWITCH}\nwritten to {out}\n"
    text = perf("script", "-i", str(out))
    assert "prev_comm=" in text and text == perf("script", "-i", str(original))
    assert f"of event '{SWITCH}'" in perf("report", "--stdio", "-i", str(out))
    evlist = perf("evlist", "-v", "--input", str(out))
    assert evlist == perf("evlist", "-v", "--input", str(original))


def test_persistent_and_ordinary_events_may_be_in_one_file(
    instance: Path, convert: Callable[..., Ran], original: Path, file: Path
) -> None:
    ids = start(SWITCH)
    file.write_bytes(persistent(record(original, "-e", WAKEUP, "-e", SWITCH), ids))
    code, _, err = convert(file, "-o", file)
    assert (code, err) == (0, "")
    text = perf("script", "-i", str(file))
    assert "prev_comm=" in text and "target_cpu=" in text
    assert text == perf("script", "-i", str(original))


def test_several_persistent_events_get_each_its_own_name_and_formats(
    instance: Path, convert: Callable[..., Ran], original: Path, file: Path
) -> None:
    ids = start(SWITCH, WAKEUP)
    file.write_bytes(persistent(record(original, "-e", WAKEUP, "-e", SWITCH), ids))
    code, said, _ = convert(file, "-o", file)
    assert code == 0 and said.splitlines()[:2] == [
        f"event {ids[WAKEUP]} is {WAKEUP}",
        f"event {ids[SWITCH]} is {SWITCH}",
    ]
    assert perf("script", "-i", str(file)) == perf("script", "-i", str(original))


def test_a_compressed_file_stays_compressed(
    instance: Path, convert: Callable[..., Ran], original: Path, file: Path
) -> None:
    if "zstd: [ on" not in perf("version", "--build-options"):
        pytest.skip("this perf was built without zstd")
    file.write_bytes(persistent(record(original, "-z", "-e", SWITCH), start(SWITCH)))
    assert convert(file, "-o", file)[0] == 0
    assert Feature.COMPRESSED in reader.parse(memoryview(file.read_bytes())).features
    assert perf("script", "-i", str(file)) == perf("script", "-i", str(original))


def test_what_an_id_stands_for_is_told_without_a_CPU(instance: Path) -> None:
    (id,) = start(SWITCH).values()
    shown, _ = call("ShowEvent", EventId(id))
    assert isinstance(shown, EventShown) and shown.recording == "flight"
    assert shown.kind.event == SWITCH and shown.kind.tracepoint is not None
    assert shown.kind.tracepoint.format == tracing.tracepoint("sched", "sched_switch").format


# --- events that are gone ---------------------------------------------------------------------


def test_an_event_that_left_its_recording_is_known_as_long_as_that_runs(
    instance: Path, convert: Callable[..., Ran], original: Path, file: Path
) -> None:
    ids = start(SWITCH, "page-faults")
    file.write_bytes(persistent(record(original), {SWITCH: ids[SWITCH]}))
    perfkeep.recordings()[0].remove([ids[SWITCH]])
    assert convert(file, "-o", file)[0] == 0
    assert perf("script", "-i", str(file)) == perf("script", "-i", str(original))


def test_without_its_recording_an_event_is_asked_for(
    instance: Path, convert: Callable[..., Ran], original: Path, file: Path, tmp_path: Path
) -> None:
    ids = start(SWITCH)
    file.write_bytes(persistent(record(original), ids))
    perfkeep.recordings()[0].claim()
    out, id = tmp_path / "out.data", ids[SWITCH]
    refused(
        convert(file, "-o", out),
        1,
        f"the recording of event {id} has ended\nhint: say what the persistent events of the file were: "
        f"-e EVENT once for each, in the file's order (ids {id})",
    )
    assert not out.exists()
    assert convert(file, "-o", out, "-e", SWITCH)[0] == 0
    assert perf("script", "-i", str(out)) == perf("script", "-i", str(original))


def test_an_event_that_was_started_after_the_file_was_written_is_another_one(
    instance: Path, convert: Callable[..., Ran], original: Path, file: Path
) -> None:
    file.write_bytes(persistent(record(original), {SWITCH: 1}))
    assert start(WAKEUP) == {WAKEUP: 1}
    os.utime(file, ns=(10**18, 10**18))
    refused(convert(file, "-o", file), 1, "the recording of event 1 has ended")


def test_with_events_named_no_broker_is_asked_or_started(
    convert: Callable[..., Ran], original: Path, file: Path
) -> None:
    made = record(original, "-e", WAKEUP, "-e", SWITCH)
    file.write_bytes(persistent(made, {SWITCH: 70, WAKEUP: 71}))
    assert convert(file, "-o", file, "-e", WAKEUP, "-e", SWITCH)[0] == 0
    assert not Path(os.environ["PERFKEEP_SOCKET"]).exists()
    assert perf("script", "-i", str(file)) == perf("script", "-i", str(original))


def test_a_dash_is_stdout(convert: Callable[..., Ran], original: Path, file: Path) -> None:
    file.write_bytes(persistent(record(original), {SWITCH: 7}))
    command = [sys.executable, "-m", "perfkeep", "convert", str(file), "-e", SWITCH, "-o"]
    got = subprocess.run([*command, "-"], capture_output=True, timeout=60, check=True)
    assert convert(file, "-o", file, "-e", SWITCH)[0] == 0
    assert (got.stdout, got.stderr) == (file.read_bytes(), b"")


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (["-e", SWITCH, "-e", WAKEUP], "2 events were named, and the file has 1\nhint: say what"),
        (["-e", "cpu-clock,page-faults"], "names 2 events, and one -e names one"),
        (["-e", "nonsense"], "unknown event 'nonsense'"),
    ],
)
def test_one_event_is_named_for_each(
    named: list[str], says: str, convert: Callable[..., Ran], original: Path, file: Path
) -> None:
    before = persistent(record(original), {SWITCH: 7})
    file.write_bytes(before)
    refused(convert(file, "-o", file, *named), 2, says)
    assert file.read_bytes() == before


# --- what is refused --------------------------------------------------------------------------


def test_a_file_without_persistent_events_is_left_alone(
    convert: Callable[..., Ran], original: Path, tmp_path: Path
) -> None:
    record(original)
    refused(convert(original, "-o", tmp_path / "out"), 2, "has no persistent event")
    assert os.listdir(tmp_path) == ["original.data"]


def test_a_file_that_is_cut_off_is_said_to_be_and_nothing_is_written(
    convert: Callable[..., Ran], original: Path, file: Path, tmp_path: Path
) -> None:
    whole = persistent(record(original), {SWITCH: 7})
    for length in (0, 50, 300, 1000, len(whole) - 1):
        file.write_bytes(whole[:length])
        code, said, err = convert(file, "-o", tmp_path / "out", "-e", SWITCH)
        assert (code, said) == (1, "") and err.count("\n") == 1 and f"{file}: " in err
        assert sorted(os.listdir(tmp_path)) == ["original.data", "perf.data"]


def test_what_perf_wrote_to_a_pipe_and_a_folder_are_not_understood(
    convert: Callable[..., Ran], file: Path, tmp_path: Path
) -> None:
    command = ["perf", "record", "-q", "-e", SWITCH, "-o", "-", "true"]
    file.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    refused(convert(file, "-o", file), 1, f"{file}: this perf.data was written to a pipe")
    refused(convert(tmp_path, "-o", file), 2, "is a directory, as perf record --threads writes")
    refused(convert("/dev/null", "-o", file), 2, "is no file")
    refused(convert(tmp_path / "none", "-o", file), 1, "none: No such file")


def test_who_may_not_look_at_a_recording_is_not_told_its_events(
    instance: Path, as_nobody: Callable[[Callable[[], object]], Any]
) -> None:
    (id,) = start(SWITCH).values()
    os.chmod(instance, 0o666)
    os.chmod(instance.parent, 0o755)

    def attempt() -> object:
        try:
            call("ShowEvent", EventId(id))
        except BrokerError as error:
            return error.errno
        return None

    assert as_nobody(attempt) == errno.EACCES
