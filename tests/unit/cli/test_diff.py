"""`perfkeep diff` and `report --tree`: two files, or two parts of one."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("numpy")

from perfkeep.abi.perf_event import Sample
from perfkeep.cli.main import main
from perfkeep.testing.assembler import PLAIN, Assembler
from perfkeep.testing.snapshots import MARK, snapshot_of

S = 10**9


def written(path: Path, *samples: tuple[int, int]) -> str:
    """(seconds, address) of samples of cpu-clock."""
    event = Assembler(sample_type=PLAIN | Sample.IP | Sample.CALLCHAIN)
    chains = [event.sample(time * S, ip=ip, callchain=(MARK, ip, 0x99)) for time, ip in samples]
    return snapshot_of(path, event, chains)


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str]:
    return (
        written(tmp_path / "a", (10, 1), (11, 1), (12, 1), (13, 2)),
        written(tmp_path / "b", (10, 1), (11, 2), (12, 2), (13, 2)),
    )


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    assert main(["diff", *arguments]) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_two_files_are_compared(two: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    title, _, *rows = shown(capsys, *two)
    assert title == ["4", "and", "4", "samples", "of", "cpu-clock"]
    assert sorted(rows) == [
        ["0.0%", "0.0%", "+0.0", "+0.0", "0x99"],
        ["25.0%", "75.0%", "+50.0", "+50.0", "0x2"],
        ["75.0%", "25.0%", "-50.0", "-50.0", "0x1"],
    ]


@pytest.mark.parametrize(
    ("spans", "title"),
    [
        (["0s..2s", "3s.."], "3 and 1"), (["..1s", "-1s.."], "2 and 2"),
        (["1s..2s", "-3s..-2s"], "2 and 2"), (["0s..0.5s", "1.5s.."], "1 and 2"),
    ],
)  # fmt: skip
def test_two_parts_of_one_file_are_compared(
    two: tuple[str, str], capsys: pytest.CaptureFixture[str], spans: list[str], title: str
) -> None:
    first, *_ = shown(capsys, two[0], *(f"--times={span}" for span in spans))
    assert " ".join(first) == f"{title} samples of cpu-clock"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name two files or recordings, or two spans"),
        (["--times", "x", "--times", "y"], "'x' is no span\nhint: write it like"),
        (["--times", "..", "--times", "1s.."], "'..' is no span"),
    ],
)
def test_what_cannot_be_compared_is_told(
    two: tuple[str, str], capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main(["diff", two[0], *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_part_without_samples_fails_without_the_usage(
    two: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", two[0], "--times", "9s..", "--times", "1s.."]) == 1
    message = "perfkeep: there is no sample of cpu_clock within 9s..\n"
    assert capsys.readouterr().err == message


def test_it_is_drawn_as_a_flame_graph(two: tuple[str, str], tmp_path: Path) -> None:
    assert main(["diff", *two, "--flamegraph", str(tmp_path / "x.html")]) == 0
    page = (tmp_path / "x.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "what changed" in page and "0x2" in page


def test_the_call_tree_begins_with_the_thread(
    two: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--tree", two[0]]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "4 samples of cpu-clock"
    assert out[2:] == [
        "100.0%   0.0%  :1", "100.0%   0.0%    0x99", " 75.0%  75.0%      0x1",
        " 25.0%  25.0%      0x2",
    ]  # fmt: skip
    assert main(["report", "--tree", "--by", "sym", two[0]]) == 2


def test_flames_are_rows_in_sql(two: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("duckdb")
    query = "SELECT f.name, p.name, f.self, f.total FROM flames f JOIN flames p ON f.parent = p.id"
    assert main(["sql", "--csv", two[0], f"{query} ORDER BY f.id"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "0x99,:1,0,4",
        "0x1,0x99,3,3",
        "0x2,0x99,1,1",
    ]


@pytest.mark.parametrize("name", ["cpu-clock:ppp", "clock"])
def test_one_event_is_compared_under_two_names(
    tmp_path: Path, two: tuple[str, str], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    event = Assembler(sample_type=PLAIN | Sample.IP | Sample.CALLCHAIN)
    samples = [event.sample(time * S, ip=1, callchain=(MARK, 1, 0x99)) for time in (1, 2)]
    other = snapshot_of(tmp_path / "c", event, samples, name)
    assert shown(capsys, two[0], other)[0] == ["4", "and", "2", "samples", "of", "cpu-clock"]
