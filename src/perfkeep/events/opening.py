"""The attr that an event is opened with: what the text left open is decided here, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from perfkeep.abi.perf_event import (
    Attr,
    ClockId,
    Flag,
    ReadFormat,
    Sample,
    Software,
    Type,
)
from perfkeep.errors import SpecError
from perfkeep.events.event import Event
from perfkeep.kernel import sysctl

# What `perf record` takes when nothing is said.
_DEFAULT_HZ = 4000

_READ_FORMAT = (
    ReadFormat.TOTAL_TIME_ENABLED | ReadFormat.TOTAL_TIME_RUNNING | ReadFormat.ID | ReadFormat.LOST
)
#: Which mean nothing for what is counted in software.
_WORDS = (Sample.WEIGHT, Sample.DATA_SRC, Sample.TRANSACTION)
_ALWAYS = Sample.IDENTIFIER | Sample.TID | Sample.TIME | Sample.CPU

# Who waits for a ring is woken when `wakeup_watermark` bytes are new. The kernel cuts that to the
# size of the ring, and takes half of the ring when nothing is said; each time it raises an
# interrupt, whether anybody waits or not. Measured on 6.18, 39 times round a ring of 32 KiB: 78
# interrupts with wakeup_events = 0, 39 with this, 20,000 with wakeup_events = 1. None at all
# cannot be had, so: as seldom as it goes.
_NEVER_WAKE = 0xFFFF_FFFF


def for_flight_ring(event: Event, call_chains: bool, inherit: bool = False) -> Attr:
    """The attr of an event that records into a flight ring (backward, overwriting).

    What the text said stays. Otherwise every tracepoint, probe, breakpoint and bpf-output is
    recorded, and all else at 4000 Hz, as in `perf record`, or at the greatest rate that the
    kernel takes. A PMU that cannot sample is counted only.

    Args:
        call_chains: record the call chain with each sample.
        inherit: what the task forks is recorded as well.

    Raises:
        SpecError: a frequency above kernel.perf_event_max_sample_rate.
    """
    attr = _with_samples(event, _with_period(event.attr, event), call_chains)
    attr = replace(
        attr.with_flags(
            Flag.WRITE_BACKWARD | Flag.WATERMARK | (Flag.INHERIT if inherit else Flag(0))
        ),
        wakeup_events=_NEVER_WAKE,
    )
    return attr if _can_sample(event, attr) else _counting_only(attr)


def told_apart(attrs: Sequence[Attr], others: int = 0) -> list[Attr]:
    """These, so that samples of what is counted in software can be told apart though the kernel mixes
    up their ids (see formats.perf_data.mixed): each kind's are another number of words longer.

    Args:
        others: so many of such kinds has the recording already.
    """
    found = []
    for attr in attrs:
        if attr.counted_in_software and attr.sample_period:
            attr = replace(attr, sample_type=attr.sample_type | sum(_WORDS[:others], Sample(0)))
            others += 1
        found.append(attr)
    return found


def for_counting(event: Event) -> Attr:
    """The attr of an event that is opened to be read; it samples only if its text said so.

    Raises:
        SpecError: a frequency above kernel.perf_event_max_sample_rate.
    """
    attr = replace(event.attr.with_flags(Flag.DISABLED), read_format=_READ_FORMAT)
    return _with_samples(event, attr, call_chains=False) if attr.sample_period else attr


def _every(event: Event) -> bool:
    """Whether each occurrence is a sample when nothing else is said."""
    attr = event.attr
    one_by_one = (Type.TRACEPOINT, Type.BREAKPOINT)
    return attr.type in one_by_one or _is_probe(event) or _is_bpf_output(attr)


def _is_probe(event: Event) -> bool:
    return event.text.startswith(("uprobe:", "uretprobe:", "kprobe:", "kretprobe:"))


def _is_bpf_output(attr: Attr) -> bool:
    return attr.type == Type.SOFTWARE and attr.config == Software.BPF_OUTPUT


def _with_period(attr: Attr, event: Event) -> Attr:
    if attr.sample_period:
        return attr
    if _every(event):
        return replace(attr, sample_period=1)
    return replace(attr.with_flags(Flag.FREQ), sample_period=min(_DEFAULT_HZ, _greatest_hz()))


def _with_samples(event: Event, attr: Attr, call_chains: bool) -> Attr:
    if attr.flags & Flag.FREQ and attr.sample_period > _greatest_hz():
        raise SpecError(
            f"{event.text!r} asks for {attr.sample_period} Hz, and kernel."
            f"perf_event_max_sample_rate = {_greatest_hz()}",
            f"freq={attr.sample_period}",
            hint=f"write freq={_greatest_hz()} or less",
        )
    return replace(
        attr.with_flags(Flag.DISABLED | Flag.SAMPLE_ID_ALL | Flag.USE_CLOCKID),
        sample_type=attr.sample_type | _sample_type(event, attr, call_chains),
        read_format=_READ_FORMAT,
        clockid=ClockId.MONOTONIC,
    )


def _sample_type(event: Event, attr: Attr, call_chains: bool) -> Sample:
    """Only what somebody needs: each field costs 8 bytes of history per sample."""
    fields = _ALWAYS
    # A tracepoint is always hit at the same address.
    fields |= Sample.RAW if attr.type == Type.TRACEPOINT or _is_bpf_output(attr) else Sample.IP
    if attr.flags & Flag.FREQ or (attr.sample_period == 1 and _counts_many(event)):
        fields |= Sample.PERIOD
    if attr.type == Type.BREAKPOINT:
        fields |= Sample.ADDR
    return fields | (Sample.CALLCHAIN if call_chains else Sample(0))


def _counts_many(event: Event) -> bool:
    """True if one hit of a tracepoint counts many: nanoseconds, with __perf_count() in Linux's
    include/trace/events/sched.h. Nothing in its format says so. With PERIOD such a hit is one sample
    of that weight (perf_swevent_event() in kernel/events/core.c); without, it is one sample for each
    nanosecond, and the kernel throttles the event at once.
    """
    tracepoint = event.tracepoint
    return (
        tracepoint is not None
        and tracepoint.system == "sched"
        and tracepoint.name.startswith("sched_stat_")
    )


def _greatest_hz() -> int:
    try:
        return int(sysctl.read("kernel.perf_event_max_sample_rate"))
    except OSError:
        return _DEFAULT_HZ


def _can_sample(event: Event, attr: Attr) -> bool:
    """Whether the PMU takes sampling events. Nothing in sysfs says so: only opening one does."""
    if attr.type <= Type.BREAKPOINT or _is_probe(event):
        return True
    from perfkeep.kernel.syscalls import perf_event_open  # it loads ctypes

    cpu = event.cpus[0] if event.cpus else 0
    for trial, counts in ((attr, False), (_counting_only(attr), True)):
        try:
            perf_event_open(trial.with_flags(off=Flag.INHERIT), -1, cpu).close()
        except OSError:
            continue
        return not counts
    return True  # neither can be opened: the real opening says why


def _counting_only(attr: Attr) -> Attr:
    # sample_type stays: perf.data wants the same id fields of all events in a file.
    plain = replace(attr, sample_period=0, wakeup_events=0)
    return plain.with_flags(off=Flag.FREQ | Flag.WATERMARK)
