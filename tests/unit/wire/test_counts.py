"""wire.structs.EventCounts: raw numbers of CPUs, and what they add up to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.wire.messages import Counts, EventCounts
from perfkeep.wire.structs import Enabled

times = st.integers(0, 10**12)


def cpu(number: int, value: int, enabled: int, running: int) -> Counts:
    return Counts(number, value, enabled, running, 0)


def test_the_copy_on_the_other_cpu_is_not_multiplexing() -> None:
    # A process that ran on CPU 0 only: its event was enabled on both, and ran on one.
    counts = EventCounts(1, "cycles", [cpu(0, 1000, 500, 500), cpu(1, 0, 500, 0)], "per_task")
    assert (counts.estimate, counts.counted) == (1000, 1.0)
    assert counts.time_enabled_ns == 500


def test_a_hardware_event_of_a_process_is_scaled_by_the_time_of_the_process() -> None:
    counts = EventCounts(1, "cycles", [cpu(0, 300, 1000, 200), cpu(1, 200, 1000, 300)], "per_task")
    assert (counts.estimate, counts.counted) == (1000, 0.5)


def test_a_hardware_event_of_cpus_is_scaled_by_the_time_of_all_of_them() -> None:
    counts = EventCounts(1, "cycles", [cpu(0, 300, 1000, 500), cpu(1, 100, 1000, 500)])
    assert (counts.estimate, counts.counted) == (800, 0.5)


def test_a_hardware_event_that_never_had_a_counter_is_not_counted() -> None:
    counts = EventCounts(1, "cycles", [cpu(0, 0, 1000, 0)])
    assert (counts.estimate, counts.counted) == (None, 0.0)


def test_a_count_without_times_is_no_estimate_where_one_is_needed() -> None:
    copies = [cpu(0, 300, 0, 0), cpu(1, 5, 0, 0)]
    hardware = EventCounts(1, "cycles", copies, "per_task", timed=False)
    assert (hardware.value, hardware.estimate, hardware.counted) == (305, None, None)
    software = EventCounts(1, "page-faults", copies, "per_task", scales=False, timed=False)
    assert (software.estimate, software.counted) == (305, 1.0)


def test_an_event_whose_process_has_not_run_yet_counts_nothing() -> None:
    counts = EventCounts(1, "cycles", [cpu(0, 0, 0, 0), cpu(1, 0, 0, 0)], "per_task")
    assert (counts.estimate, counts.counted) == (0, 1.0)


@given(
    st.lists(st.tuples(times, times, times), max_size=4), st.sampled_from(["per_cpu", "per_task"])
)
def test_what_needs_no_hardware_counter_is_never_scaled(
    numbers: list[tuple[int, int, int]], enabled: Enabled
) -> None:
    per_cpu = [cpu(number, *each) for number, each in enumerate(numbers)]
    counts = EventCounts(1, "page-faults", per_cpu, enabled, scales=False)
    assert counts.estimate in (counts.value, None)
    assert counts.estimate is not None or not counts.time_running_ns


@given(st.integers(1, 8), st.integers(1, 10**9), st.integers(1, 10**12))
def test_the_number_of_cpus_makes_no_difference_to_a_process(n: int, value: int, ran: int) -> None:
    copies = [cpu(0, value, ran, ran), *(cpu(number, 0, ran, 0) for number in range(1, n))]
    assert EventCounts(1, "cycles", copies, "per_task").estimate == value


@pytest.mark.parametrize("share", [0.99995, 1.0, 1.2])
def test_the_time_between_two_reads_is_no_multiplexing(share: float) -> None:
    counts = EventCounts(1, "cycles", [cpu(0, 10**6, 10**9, int(10**9 * share))])
    assert counts.estimate == 10**6
