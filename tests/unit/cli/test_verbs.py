"""Verbs against a client that is played here: what they print, and in which order they act."""

from __future__ import annotations

import errno
import json
import re
import sys
import time
from pathlib import Path

import pytest

from perfkeep.cli import claim, snapshot
from perfkeep.cli.common import as_json
from perfkeep.cli.main import main
from perfkeep.cli.stat import _row
from perfkeep.errors import BrokerError
from perfkeep.formats.perf_data import CpuCoverage
from perfkeep.wire.messages import (
    Counts,
    EventCounts,
    EventInfo,
    Gap,
    Owner,
    RecordingInfo,
    Ring,
    Target,
)

INFO = RecordingInfo(
    "n", 3, "running", 0, Owner(0, 0, 17, "c"), 0o600, 0, Ring("backward", 4096), Target(),
    [EventInfo(3, "cpu-clock", [0, 1])],
)  # fmt: skip


def test_a_count_that_shared_its_counter_is_scaled_and_says_so() -> None:
    shared = Counts(0, 1000, 4_000_000_000, 1_000_000_000, 0)
    assert _row(EventCounts(1, "cycles", [shared])) == [
        "4,000", "", "cycles", "4.000", "0", "(25.0% counted)",
    ]  # fmt: skip


def test_a_count_that_had_its_counter_always_is_shown_as_it_is() -> None:
    whole = Counts(0, 1234567, 10**9, 10**9, 2)
    assert _row(EventCounts(1, "cycles", [whole, whole])) == [
        "2,469,134", "", "cycles", "2.000", "4", "",
    ]  # fmt: skip


def test_an_event_that_was_enabled_and_never_ran_is_not_counted() -> None:
    assert _row(EventCounts(1, "e", [Counts(0, 0, 0, 0, 0)]))[0] == "0"
    assert _row(EventCounts(1, "e", [Counts(0, 0, 10**9, 0, 0)]))[0] == "<not counted>"


def test_one_that_cannot_be_ended_stops_none_of_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[str] = []

    class Played:
        def __init__(self, name: str) -> None:
            self.name = name

        def claim(self) -> None:
            if self.name.startswith("no"):
                raise BrokerError(errno.ENOENT, f"there is no {self.name}", hint="look")
            ended.append(self.name)

    monkeypatch.setattr(claim, "Recording", Played)
    assert main(["claim", "no1", "a", "no2", "b", "a"]) == 1
    out, err = capsys.readouterr()
    assert ended == ["a", "b"] and out == "a has ended\nb has ended\n"
    assert err == ("perfkeep: there is no no1\nhint: look\nperfkeep: there is no no2\nhint: look\n")


def coverage(cpu: int, lost: int = 0, reached: bool = True) -> CpuCoverage:
    return CpuCoverage(cpu=cpu, first_ns=None, last_ns=None, records=0, bytes=0, overwritten=0,
                       lost=lost, reached=reached)  # fmt: skip


def test_what_is_missing_from_a_snapshot_is_said_by_cpu_and_number() -> None:
    cpus = [coverage(0), coverage(1, lost=1200, reached=False), coverage(2, 34)]
    gap = Gap(0, None, "CPU 1 went offline", [1])
    said = snapshot.what_is_missing(cpus, [gap])
    assert "the rings of CPU 1 do not reach back" in said and "1,234 samples" in said
    assert "there is no data on CPU 1 from 1970-01-01T00:00:00.000000Z until now" in said


def test_many_gaps_of_a_snapshot_are_counted_and_the_last_ones_named() -> None:
    gaps = [
        Gap(second * 10**9, second * 10**9 + 1, "CPU 1 went offline", [1]) for second in range(9)
    ]
    sentence = snapshot.what_is_missing([coverage(0)], gaps)
    assert sentence.count("there is no data on CPU 1") == 3 and "1970-01-01T00:00:08" in sentence
    assert sentence.endswith(" and there are 6 earlier gaps")


@pytest.mark.parametrize(
    ("terminal", "seconds", "seen"), [(True, 2, True), (True, 0, False), (False, 2, False)]
)
def test_progress_is_for_terminals_and_for_what_takes_over_a_second(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    terminal: bool,
    seconds: float,
    seen: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    show = snapshot._progress(100.0 - seconds)
    show(1, 2)
    show(2, 2)
    assert capsys.readouterr().err == ("\rring 1 of 2\rring 2 of 2\n" if seen else "")


def test_only_what_a_rename_would_destroy_is_written_to_in_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link", "absent", "."):
        assert not snapshot._is_stream(str(tmp_path / name)), name
    for path in ("-", "/dev/null", "/dev/full"):
        assert snapshot._is_stream(path), path


def keys(document: object) -> object:
    """The shape of a document: its members by name, all the way down."""
    if isinstance(document, dict):
        return {name: keys(value) for name, value in document.items()}
    return [keys(one) for one in document] if isinstance(document, list) else None


def test_the_documented_list_is_the_printed_one() -> None:
    text = (Path(__file__).parents[3] / "docs" / "json.md").read_text()
    documented = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.S)]
    assert keys(documented[0][0]["owner"]) == keys(as_json(INFO)["owner"])
    assert set(documented[0][0]) == set(as_json(INFO))
    assert keys(documented[0][0]["ring"]) == keys(as_json(INFO)["ring"])
