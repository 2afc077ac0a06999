"""Terms of PMUs that this machine need not have."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from perfkeep.abi.perf_event import Attr, Flag
from perfkeep.errors import SpecError
from perfkeep.events import Event, parse


def one(text: str) -> Event:
    (event,) = parse(text)
    return event


@pytest.mark.parametrize(
    ("text", "attr"),
    [
        ("cpu/event=0x3c/", Attr(type=4, config=0x3C)),
        ("cpu/event=0xabc,umask=0x12/", Attr(type=4, config=0xA_0000_12BC)),
        ("cpu/inv/", Attr(type=4, config=1 << 23)),
        ("cpu/cpu-cycles/", Attr(type=4, config=0x3C)),
        ("cpu/cpu-cycles,inv,umask=1/", Attr(type=4, config=0x80013C)),
        ("cpu/mem-loads/", Attr(type=4, config=0x1CD, config1=3)),
        ("cpu/mem-loads,ldlat=4/", Attr(type=4, config=0x1CD, config1=7)),
        ("cpu/frontend=0x11/", Attr(type=4, config3=0x11)),
        ("cpu/umask=1,config=0x3c/", Attr(type=4, config=0x13C)),
        ("cpu/slots/", Attr(type=4, config=0x400, sample_period=2000003)),
        ("cpu/slots,freq=9/", Attr(type=4, config=0x400, sample_period=9, flags=Flag.FREQ)),
        ("cpu//", Attr(type=4)),
        ("hv_24x7/cycles_of,domain=2/", Attr(type=30, config=0x98_0000_0002)),
        ("software/config=3/", Attr(type=1, config=3)),
    ],
)
def test_terms_go_to_the_bits_that_sysfs_names(sysfs: Path, text: str, attr: Attr) -> None:
    assert one(text).attr == attr


def test_a_pmu_event_keeps_its_terms_in_text_and_name(sysfs: Path) -> None:
    event = one("cpu/event=0x3c,period=1000/u")
    assert (event.text, event.name) == ("cpu/event=0x3c,period=1000/u", "cpu/event=0x3c/u")
    assert one("cpu/event=0x3c,name=mine/u").name == "mine"
    assert one(event.text) == event


def test_a_named_event_of_a_pmu_needs_no_pmu(sysfs: Path) -> None:
    event = one("mem-loads:u")
    assert event == one("cpu/mem-loads/u")
    assert event.text == "cpu/mem-loads/u"
    assert one("mem-loads/ldlat=8/").attr.config1 == 11


def test_an_uncore_pmu_is_opened_once_per_instance_on_the_cpus_that_it_names(sysfs: Path) -> None:
    for text in ("uncore_imc/reads/", "imc/reads/"):
        events = parse(text)
        assert [event.text for event in events] == ["uncore_imc_0/reads/", "uncore_imc_1/reads/"]
        assert [event.cpus for event in events] == [(0,), (0, 18)]
        assert [event.attr.type for event in events] == [23, 24]
    assert one("cpu/event=1/").cpus is None


@pytest.mark.parametrize(
    ("text", "number", "part", "said"),
    [
        ("cpv/event=1/", errno.ENOENT, "cpv", "did you mean cpu"),
        ("cpu/evnt=1/", errno.ENOENT, "evnt", "did you mean event"),
        ("cpu/strange=1/", errno.ENOENT, "strange", "expected some of event"),
        ("cpu/umask=0x100/", errno.EINVAL, "umask=0x100", "greatest is 0xff"),
        ("cpu/umask=x/", errno.EINVAL, "umask=x", "number"),
        ("cpu/slots.scale/", errno.ENOENT, "slots.scale", "unknown term"),
        ("hv_24x7/cycles_of/", errno.EINVAL, "domain", "add domain=NUMBER"),
        ("cpu", errno.EINVAL, "cpu", "needs terms"),
        ("cpu-cycle", errno.ENOENT, "cpu-cycle", "did you mean cpu-cycles"),
    ],
)
def test_a_bad_term_is_named_with_what_was_expected(
    sysfs: Path, text: str, number: int, part: str, said: str
) -> None:
    with pytest.raises(SpecError, match=said) as caught:
        parse(text)
    assert (caught.value.errno, caught.value.part) == (number, part)


def test_a_machine_without_pmus_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perfkeep.kernel.pmus.DEVICES", tmp_path / "nothing")
    with pytest.raises(SpecError, match="only none"):
        parse("cpu/event=1/")
