"""Tables, ages, moments and names, as people see and type them."""

from __future__ import annotations

import sys
import time
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.cli.common import age, as_json, group_name, user_name, utc
from perfkeep.cli.table import bold, render
from perfkeep.cli.times import parse_moment
from perfkeep.errors import UsageError
from perfkeep.wire.messages import EventInfo, Owner, RecordingInfo, Ring, Target

CELLS = st.lists(st.text("abc ,.19", max_size=9), min_size=3, max_size=3)


@given(st.lists(CELLS, max_size=5))
def test_columns_begin_at_the_same_place_in_every_line(rows: list[list[str]]) -> None:
    header = ["ONE", "TWO", "THREE"]
    lines = render(header, rows).split("\n")
    assert len(lines) == len(rows) + 1
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(3)]
    for line, row in zip(lines, [header, *rows], strict=True):
        padded = line.ljust(sum(widths) + 4)
        starts = (0, widths[0] + 2, widths[0] + widths[1] + 4)
        for start, width, cell in zip(starts, widths, row, strict=True):
            assert padded[start : start + width] == cell.ljust(width)


def test_numbers_end_at_the_same_place() -> None:
    lines = render(["COUNT", "EVENT"], [["7", "a"], ["1,234,567", "b"]], right=(0,)).split("\n")
    assert lines == ["    COUNT  EVENT", "        7  a", "1,234,567  b"]


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bold("x") == "x"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert bold("x") == "\x1b[1mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert bold("x") == "x"


#: Noon, so that a time of day of an hour ago is one of today.
NOW = int(datetime(2026, 1, 31, 12).timestamp())
MONOTONIC = 5000


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clocks stand still at NOW and MONOTONIC."""
    monkeypatch.setattr(time, "time_ns", lambda: NOW * 10**9)
    monkeypatch.setattr(time, "clock_gettime_ns", lambda clock: MONOTONIC * 10**9)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (200_000, "2d")]
)
@pytest.mark.usefixtures("clocks")
def test_an_age_is_told_in_its_largest_unit(seconds: int, words: str) -> None:
    assert age((NOW - seconds) * 10**9 - 10**8) == words


@pytest.mark.usefixtures("clocks")
def test_a_moment_in_the_future_has_no_age() -> None:
    assert age((NOW + 1000) * 10**9) == "0s"


@pytest.mark.parametrize("ago", [0.5, 10, 3600])
@pytest.mark.usefixtures("clocks")
def test_moments_are_put_onto_the_clock_of_recordings(ago: float) -> None:
    then = datetime.fromtimestamp(NOW - ago)
    for text in (
        f"-{ago}s",
        f"{ago}s",
        f"@{NOW - ago}",
        then.isoformat(),
        f"{then:%H:%M:%S.%f}",
    ):
        assert parse_moment(text) == pytest.approx((MONOTONIC - ago) * 1e9, abs=1e3), text


@pytest.mark.usefixtures("clocks")
def test_a_moment_with_a_zone_is_that_moment() -> None:
    text = "2026-01-31T14:05:00Z"
    ahead = datetime.fromisoformat(text).timestamp() - NOW
    assert parse_moment(text) == pytest.approx((MONOTONIC + ahead) * 1e9, abs=1e3)


@pytest.mark.parametrize("text", ["", "soon", "25:99", "@", "@x", "-", "-x", "2026-13-01", "1e999"])
def test_what_is_no_moment_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError, match="write it like"):
        parse_moment(text)


@given(st.text(max_size=20))
def test_any_text_is_a_moment_or_refused(text: str) -> None:
    try:
        assert isinstance(parse_moment(text), int)
    except UsageError:
        pass


def test_a_recording_has_just_the_documented_members() -> None:
    info = RecordingInfo(
        name="n",
        id=3,
        state="running",
        created_ns=1_700_000_000_123_456_789,
        owner=Owner(0, 0, 17, "perfkeep start n"),
        mode=0o600,
        gid=0,
        ring=Ring("backward", 4096),
        target=Target(pids=[17]),
        events=[EventInfo(3, "cpu-clock", [0, 1])],
    )
    assert as_json(info) == {
        "name": "n",
        "id": 3,
        "state": "running",
        "created": "2023-11-14T22:13:20.123456Z",
        "owner": {"uid": 0, "user": "root", "pid": 17, "command": "perfkeep start n"},
        "mode": "0600",
        "group": "root",
        "ring": {"kind": "backward", "bytes_per_cpu": 4096, "overwrites": True},
        "target": {"pids": [17], "cgroup": None, "program": None},
        "events": [
            {"id": 3, "event": "cpu-clock", "cpus": [0, 1], "filter": None, "call_chains": False}
        ],
        "expires": None,
        "offline_cpus": [],
        "gaps": [],
        "problem": "",
        "sideband_cpus": [],
        "spill": None,
    }


def test_ids_without_a_name_are_shown_as_numbers() -> None:
    assert user_name(3_999_999_999) == "3999999999"
    assert group_name(3_999_999_999) == "3999999999"
    assert utc(0) == "1970-01-01T00:00:00.000000Z"
