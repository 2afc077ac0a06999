"""What perfkeep makes of an event's name is what stock perf makes of it, attr by attr.

perf prints every attr that it is about to open (-vv). Here most runs have a seccomp filter that
refuses perf_event_open: hardware events then show their attr on machines that lack them, and
2,300 tracepoints take seconds. Opened for real, each is unregistered at perf's exit, which waits
40 ms for RCU.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import re
import select
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from perfkeep import events
from perfkeep.abi.perf_event import DATA_HEAD_OFFSET, Attr, Flag
from perfkeep.client.opening import open_one
from perfkeep.errors import SpecError
from perfkeep.events import names
from perfkeep.kernel import perf_fd, pmus
from perfkeep.testing.requirements import (
    hardware_pmu,
    perf_events,
    perf_tool,
    requires,
    root,
    tracefs,
    uprobes,
)

pytestmark = requires(perf_events, tracefs, perf_tool, root)

Shown = dict[str, int]

# The fields that an event's text decides; all others depend on the command it is used with.
IDENTITY = ("type", "config", "config1", "config2", "bp_type")
FLAGS = (
    "exclude_user", "exclude_kernel", "exclude_hv", "exclude_idle", "exclude_host",
    "pinned", "exclusive", "freq",
)  # fmt: skip
BATCH = 300


# --- asking perf ------------------------------------------------------------------------------

_NR_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LD_NR, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
# perf goes on with the next event after this one, and tries nothing else in its place.
_REFUSE = 0x0005_0000 | errno.EOPNOTSUPP
_ALLOW = 0x7FFF_0000

_libc = ctypes.CDLL(None, use_errno=True)


def refuse_perf_event_open() -> None:
    """For this process and what it starts, for good: run in a child before exec."""
    number = _NR_PERF_EVENT_OPEN[platform.machine()]
    program = struct.pack(
        "HBBI" * 4, _LD_NR, 0, 0, 0, _JUMP_EQUAL, 0, 1, number,
        _RETURN, 0, 0, _REFUSE, _RETURN, 0, 0, _ALLOW,
    )  # fmt: skip
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HxxxxxxQ", 4, ctypes.addressof(buffer))
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or _libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, fprog, 0, 0
    ):
        raise OSError(ctypes.get_errno(), "seccomp")


def perf(*arguments: str, refuse: bool = False) -> str:
    """What perf says, on both of its outputs."""
    done = subprocess.run(
        ["perf", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        check=False,
        preexec_fn=refuse_perf_event_open if refuse else None,
    )
    return done.stdout


def blocks(text: str) -> list[Shown]:
    """Every attr that perf printed: field → number; a field that is 0 is not printed."""
    return [
        {key.split(",")[-1].strip(" }"): int(value, 0) for key, value in fields(block)}
        for block in re.findall(r"^perf_event_attr:\n(.*?)^-{20,}$", text, re.M | re.S)
    ]


def fields(block: str) -> list[tuple[str, str]]:
    return re.findall(r"^  (\{[^}]*\}|\w+) +(-?(?:0x[0-9a-f]+|\d+))$", block, re.M)


def shown(specs: Sequence[str]) -> dict[str, list[Shown]]:
    """spec → the attrs that `perf stat` would open for it; specs that perf rejects are left out."""
    arguments = [word for spec in specs for word in ("-e", spec)]
    found = blocks(perf("stat", "-vv", *arguments, "true", refuse=True))
    if len(specs) == 1:
        return {specs[0]: found} if found else {}
    if len(found) == len(specs):
        return {spec: [attr] for spec, attr in zip(specs, found, strict=True)}
    # perf takes all of a command line or none of it; and some specs are several events.
    middle = len(specs) // 2
    return shown(specs[:middle]) | shown(specs[middle:])


def all_shown(specs: Sequence[str]) -> dict[str, list[Shown]]:
    found: dict[str, list[Shown]] = {}
    for at in range(0, len(specs), BATCH):
        found |= shown(specs[at : at + BATCH])
    return found


def listed(kind: str) -> list[str]:
    return perf("list", "--raw-dump", kind).split()


# --- comparing --------------------------------------------------------------------------------


def ours(attr: Attr, keys: Sequence[str]) -> Shown:
    """The attr, spelled as perf prints it, of those fields."""
    values = {key: int(getattr(attr, key)) for key in (*IDENTITY, "precise_ip", "sample_period")}
    values["sample_freq"] = values["sample_period"]
    values |= {key: int(bool(attr.flags & Flag[key.upper()])) for key in FLAGS}
    return {key: values[key] for key in keys if values[key]}


def theirs(attr: Shown, keys: Sequence[str]) -> Shown:
    return {key: attr[key] for key in keys if attr.get(key)}


def differences(found: dict[str, list[Shown]], keys: Sequence[str]) -> list[str]:
    wrong = []
    for spec, attrs in found.items():
        wanted = [theirs(attr, keys) for attr in attrs]
        got = [ours(event.attr, keys) for event in events.parse(spec)]
        if got != wanted:
            wrong.append(f"{spec}: perf opens {wanted}, perfkeep {got}")
    return wrong


# --- the promises -----------------------------------------------------------------------------


def test_every_tracepoint_that_perf_lists_has_the_type_and_config_that_perf_gives_it() -> None:
    specs = listed("tracepoint")
    found = all_shown(specs)
    assert len(found) == len(specs) > 0
    assert differences(found, IDENTITY) == []


def test_every_other_event_that_perf_lists_has_the_type_and_config_that_perf_gives_it() -> None:
    # What perf knows from tables of its own, and the kernel does not, is not in sysfs.
    in_sysfs = {f"{pmu}/{event}/" for pmu, event in pmus.all_events()}
    in_sysfs |= {event for _, event in pmus.all_events()}
    specs = [*listed("hw"), *listed("sw"), *listed("cache")]
    specs += [spec for spec in listed("pmu") if spec in in_sysfs]
    assert "cpu-clock" in specs
    found = all_shown(specs)
    assert len(found) == len(specs)
    assert differences(found, IDENTITY) == []


def test_hardware_and_cache_events_have_perfs_type_and_config_where_no_such_hardware_is() -> None:
    specs = [*dict.fromkeys(names.all_names())]
    found = all_shown(specs)
    assert {attr.get("type", 0) for attrs in found.values() for attr in attrs} == {0, 1, 3}
    assert set(specs) == set(found)
    assert differences(found, IDENTITY) == []


def test_what_perf_really_opens_is_what_perfkeep_parses() -> None:
    specs = ["cpu-clock", "task-clock", "faults", "cs", "migrations", "dummy", "timer:timer_start"]
    opened = blocks(perf("stat", "-vv", *(f"-e{spec}" for spec in specs), "true"))
    assert differences(dict(zip(specs, ([one] for one in opened), strict=True)), IDENTITY) == []


CACHE_ALIASES = [
    "l1d-read", "L1-data-write-misses", "l1-i-loads", "L1-instruction-prefetch-miss", "L2-refs",
    "LLC-misses", "LLC-prefetches-access", "d-tlb-store-ops", "Data-TLB-load-Reference",
    "i-tlb-loads", "Instruction-TLB-load-misses", "bpu", "btb-load-misses", "bpc-misses",
    "node", "node-speculative-read-misses", "L1-dcache-misses-loads",
]  # fmt: skip


@pytest.mark.parametrize("spec", CACHE_ALIASES)
def test_a_cache_event_may_be_spelled_in_each_way_that_perf_takes(spec: str) -> None:
    assert differences(all_shown([spec]), IDENTITY) == []
    assert all_shown([spec])


SPECS = [
    "cpu-clock:u", "cpu-clock:k", "cpu-clock:h", "cpu-clock:uk", "cpu-clock:ukh", "cs:G", "cs:H",
    "cs:GH", "faults:I", "faults:D", "faults:De", "cycles:p", "cycles:pp", "cycles:uppp",
    "instructions:ku", "sched:sched_switch:u", "sched:sched_switch:D", "sched:sched_[sw]*:k",
    "sch*:sched_switch", "r1a8", "r1A8:u", "r0", "1:0", "4:0x1a8:u", "2:17", "3:65536:k",
    "mem:0x1000", "mem:4096:x", "mem:0x1000/8:w", "mem:0x1000/1:rw:u", "mem:0x1000/2",
    "cpu-clock/config=3/", "cycles/config=0x11,config1=5/u", "cpu-clock/name=mine/k",
    "software/config=3/", "{cs,faults}:u", "{cs:u,faults}:k", "{cs,faults}:D", "{cs,faults}:e",
    "{cpu-clock:p,faults}:pp", "pair{cs,faults:k}", "{cs,faults},cpu-clock:u",
    "cs,faults , cpu-clock:u", "duration_time", "{sched:sched_wak*}:u",
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
def test_modifiers_terms_and_groups_change_an_attr_as_they_do_in_perf(spec: str) -> None:
    # perf tries no other event of a group whose leader was refused.
    attrs = blocks(perf("stat", "-vv", "-e", spec, "true", refuse="{" not in spec))
    keys = [*IDENTITY, *(flag for flag in FLAGS if flag != "freq"), "precise_ip"]
    assert attrs
    # The order of a glob's events is that of the directory in perf, that of the names here.
    wanted = sorted(str(theirs(attr, keys)) for attr in attrs)
    assert sorted(str(ours(event.attr, keys)) for event in events.parse(spec)) == wanted


@pytest.mark.parametrize(
    "spec", ["msr/tsc/", "msr/tsc/u", "msr/event=0/", "msr/event=1/k", "msr/config=3/", "tsc"]
)
def test_terms_of_a_pmu_set_the_bits_that_perf_sets(spec: str) -> None:
    if "msr" not in pmus.names():
        pytest.skip("this machine has no msr PMU")
    keys = [*IDENTITY, "exclude_user", "exclude_kernel", "exclude_hv"]
    found = all_shown([spec])
    assert found
    assert differences(found, keys) == []


SAMPLED = [
    "cpu-clock", "cpu-clock/freq=999/u", "cpu-clock/period=7/", "task-clock/freq=0x64/", "cs",
    "faults/period=100,name=mine/k", "cpu-clock/period=7,freq=99/", "cpu-clock/freq=99,period=7/",
    "mem:0x1000:w", "mem:0x1000/8:rw:u", "bpf-output", "sched:sched_switch", "cpu-clock:P",
]  # fmt: skip


@pytest.mark.parametrize("spec", SAMPLED)
def test_a_recording_samples_as_often_as_perf_record_does(spec: str, tmp_path: Path) -> None:
    quick = ("-B", "-N", "--no-bpf-event")
    said = perf("record", "-vv", *quick, "-o", str(tmp_path / "perf.data"), "-e", spec, "true")
    first = blocks(said)[0]
    (event,) = events.parse(spec)
    attr = events.for_flight_ring(event, call_chains=False)
    keys = [*IDENTITY, *FLAGS, "precise_ip", "sample_freq"]
    assert ours(attr, keys) == theirs(first, keys)


@pytest.mark.parametrize(
    "spec",
    ["cpu-clok", "cpu-clock:z", "cpu-clock:uu", "cpu-clock:pppp", "sched:no_such", "nosuch:*",
     "mem:zz", "mem:0x10:rr", "cs,,faults", "cpu-clock/nosuch=1/", "msr",
     "nosuch/config=1/", "L1-icache-stores", "cs:u:k", "cpu-clock/period=/"],
)  # fmt: skip
def test_what_perf_rejects_is_rejected(spec: str) -> None:
    assert not all_shown([spec])
    with pytest.raises(SpecError):
        events.parse(spec)


# --- opening what was parsed ------------------------------------------------------------------


def libc() -> str:
    with open("/proc/self/maps") as maps:
        return next(line.split()[-1] for line in maps if "/libc.so" in line or "/libc-" in line)


@pytest.mark.parametrize(
    "spec",
    ["cpu-clock", "cpu-clock/freq=99/u", "cs", "bpf-output", "sched:sched_switch", "dummy:D",
     "sched:sched_switch/period=10,call-graph=fp/k", "mem:0x1000:w", "1:3", "duration_time"],
)  # fmt: skip
@pytest.mark.parametrize("call_chains", [False, True])
def test_the_kernel_takes_what_was_parsed(spec: str, call_chains: bool) -> None:
    (event,) = events.parse(spec)
    for attr in (events.for_flight_ring(event, call_chains), events.for_counting(event)):
        open_one(event, attr, -1, 0).close()
    inherited = events.for_flight_ring(event, call_chains, inherit=True)
    open_one(event, inherited, 0, 0).close()


def test_a_pmu_that_cannot_sample_is_counted() -> None:
    if "msr" not in pmus.names():
        pytest.skip("this machine has no msr PMU")
    (event,) = events.parse("msr/tsc/")
    attr = events.for_flight_ring(event, call_chains=False)
    assert attr.sample_period == 0
    with open_one(event, attr.with_flags(off=Flag.DISABLED), -1, 0) as fd:
        first, second = (perf_fd.read(fd.fileno(), attr.read_format).value for _ in range(2))
    assert second > first


def test_P_is_the_greatest_precision_that_the_kernel_takes() -> None:
    (event,) = events.parse("cycles:P")
    if hardware_pmu.probe() is not None:
        assert event.attr.precise_ip == 0
    (clock,) = events.parse("cpu-clock:P")
    assert clock.attr.precise_ip == 3


@requires(uprobes)
@pytest.mark.parametrize("kind", ["uprobe", "uretprobe"])
@pytest.mark.parametrize("place", ["getppid", "offset"])
def test_a_probe_counts_every_call_of_its_function(kind: str, place: str) -> None:
    (event,) = events.parse(f"{kind}:{libc()}:getppid")
    if place == "offset":
        (event,) = events.parse(f"{kind}:{libc()}:{event.attr.config2:#x}")
    attr = events.for_counting(event)
    with open_one(event, attr.with_flags(off=Flag.DISABLED), 0, -1) as fd:
        for _ in range(100):
            os.getppid()
        assert perf_fd.read(fd.fileno(), attr.read_format).value == 100


def test_a_flight_ring_raises_its_interrupt_once_per_time_round() -> None:
    (event,) = events.parse("syscalls:sys_enter_getppid")
    attr = events.for_flight_ring(event, call_chains=False)
    data = 8 * mmap.PAGESIZE
    with (
        open_one(event, attr.with_flags(off=Flag.DISABLED), 0, -1) as fd,
        mmap.mmap(fd.fileno(), data + mmap.PAGESIZE, prot=mmap.PROT_READ) as ring,
    ):
        poll = select.poll()
        poll.register(fd.fileno(), select.POLLIN)
        ready = 0
        for _ in range(10_000):
            os.getppid()
            ready += bool(poll.poll(0))
        head = struct.unpack_from("=Q", ring, DATA_HEAD_OFFSET)[0]
    times_round = (2**64 - head) / data
    assert times_round > 10
    assert ready <= times_round + 1
