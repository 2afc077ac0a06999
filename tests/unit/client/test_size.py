"""perfkeep.client.size: from what was recorded to the ring that holds it."""

from __future__ import annotations

import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.client.size import Rate, _rate, ring_for
from perfkeep.errors import UsageError
from perfkeep.formats.perf_data import CpuCoverage


def test_a_ring_that_has_not_wrapped_is_measured_over_all_of_the_time() -> None:
    found = CpuCoverage(1, first_ns=0, last_ns=10**9, records=50, bytes=4000)
    assert _rate(found, 2.0) == Rate(1, 25.0, 2000.0, False)


def test_a_ring_that_has_wrapped_is_measured_over_what_it_holds() -> None:
    found = CpuCoverage(1, first_ns=10**9, last_ns=3 * 10**9 // 2, records=50, bytes=4000)
    found.wrapped = True
    assert _rate(found, 60.0) == Rate(1, 100.0, 8000.0, True)


@given(
    st.lists(st.floats(0, 1e9), max_size=4),
    st.floats(0.001, 100),
)
def test_the_ring_is_the_smallest_that_holds_it_on_the_busiest_cpu(
    rates: list[float], seconds: float
) -> None:
    size = ring_for([Rate(at, 1, rate, False) for at, rate in enumerate(rates)], seconds)
    needed = max(rates, default=0) * seconds * 1.25
    assert size % mmap.PAGESIZE == 0 and (size // mmap.PAGESIZE).bit_count() == 1
    assert size >= needed * 0.999
    assert size == mmap.PAGESIZE or size / 2 < needed * 1.001


def test_time_is_as_people_type_it() -> None:
    assert ring_for([Rate(0, 1, 1 << 20, False)], "10s") == 16 << 20
    with pytest.raises(UsageError, match="soon"):
        ring_for([], "soon")
