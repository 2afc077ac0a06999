"""PMUs in a made-up sysfs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.kernel import pmus
from perfkeep.kernel.pmus import Bits, parse_bits


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {
        "cpu/type": "4",
        "cpu/format/event": "config:0-7,32-35",
        "cpu/format/later": "config9:0-7",
        "cpu/events/cycles": "event=0x3c",
        "cpu/events/cycles.unit": "Hz",
        "imc/type": "23",
        "imc/cpumask": "0,18",
        "atom/type": "10",
        "atom/cpus": "8-11",
        "plain/type": "1",
        "empty/type": "2",
        "empty/cpumask": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(pmus, "DEVICES", tmp_path)
    return tmp_path


def test_a_pmu_is_what_its_folder_says(devices: Path) -> None:
    pmu = pmus.load("cpu")
    assert (pmu.name, pmu.type, pmu.cpus) == ("cpu", 4, None)
    assert pmu.formats == {"event": Bits("config", (0, 1, 2, 3, 4, 5, 6, 7, 32, 33, 34, 35))}
    assert pmu.events == {"cycles": "event=0x3c"}


def test_cpus_come_from_either_file_and_none_means_any(devices: Path) -> None:
    assert pmus.load("imc").cpus == (0, 18)
    assert pmus.load("atom").cpus == (8, 9, 10, 11)
    assert pmus.load("plain").cpus is None
    assert pmus.load("empty").cpus is None


def test_pmus_are_found_by_the_events_that_they_name(devices: Path) -> None:
    assert pmus.names() == ["atom", "cpu", "empty", "imc", "plain"]
    assert pmus.all_events() == [("cpu", "cycles")]
    assert pmus.with_event("cycles") == ["cpu"]
    assert pmus.with_event("none") == []


def test_an_unknown_pmu_is_a_missing_file(devices: Path) -> None:
    with pytest.raises(FileNotFoundError):
        pmus.load("nosuch")


def test_a_machine_without_sysfs_has_no_pmus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pmus, "DEVICES", tmp_path / "nothing")
    assert pmus.names() == []
    assert pmus.all_events() == []


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("config:0-7", Bits("config", tuple(range(8)))),
        ("config:21", Bits("config", (21,))),
        ("config1:0-1,63\n", Bits("config1", (0, 1, 63))),
        ("config:0-64", None),
        ("config:7-0", None),
        ("config:", None),
        ("config:a", None),
        ("config:1-", None),
        ("config9:0", None),
        ("", None),
    ],
)
def test_a_format_names_bits_or_is_not_known(text: str, bits: Bits | None) -> None:
    assert parse_bits(text) == bits


@given(st.text(max_size=30))
def test_any_text_is_a_format_or_none(text: str) -> None:
    bits = parse_bits(text)
    assert bits is None or all(0 <= at < 64 for at in bits.positions)


@given(st.lists(st.integers(0, 63), min_size=1, unique=True), st.integers(0, 2**64 - 1))
def test_each_bit_of_a_value_goes_to_its_own_place(positions: list[int], value: int) -> None:
    bits = Bits("config", tuple(positions))
    value &= bits.greatest
    placed = bits.place(value)
    assert [placed >> at & 1 for at in positions] == [value >> i & 1 for i in range(len(positions))]
    assert placed.bit_count() == value.bit_count()
