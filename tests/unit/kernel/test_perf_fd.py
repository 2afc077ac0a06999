"""perfkeep.kernel.perf_fd: what read(2) of an event means, and what is no event at all."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import ReadFormat
from perfkeep.errors import BrokerError
from perfkeep.kernel.perf_fd import Reading, check, decode

U64 = st.integers(0, (1 << 64) - 1)
FORMATS = [ReadFormat(bits) for bits in range(32)]


def kernel_words(reading: Reading, read_format: ReadFormat, siblings: int) -> list[int]:
    """What the kernel writes for a leader, and siblings that have counted 1 each."""
    times = []
    if read_format & ReadFormat.TOTAL_TIME_ENABLED:
        times.append(reading.time_enabled_ns)
    if read_format & ReadFormat.TOTAL_TIME_RUNNING:
        times.append(reading.time_running_ns)
    about = []
    if read_format & ReadFormat.ID:
        about.append(reading.kernel_id)
    if read_format & ReadFormat.LOST:
        about.append(reading.lost)
    if not read_format & ReadFormat.GROUP:
        return [reading.value, *times, *about]
    sibling = [1] * (1 + len(about))
    return [1 + siblings, *times, reading.value, *about, *sibling * siblings]


@given(st.builds(Reading, U64, U64, U64, U64, U64), st.sampled_from(FORMATS), st.integers(0, 3))
def test_every_read_format_gives_its_fields_and_zero_for_the_others(
    reading: Reading, read_format: ReadFormat, siblings: int
) -> None:
    has = read_format.__contains__
    expected = Reading(
        reading.value,
        reading.time_enabled_ns * has(ReadFormat.TOTAL_TIME_ENABLED),
        reading.time_running_ns * has(ReadFormat.TOTAL_TIME_RUNNING),
        reading.kernel_id * has(ReadFormat.ID),
        reading.lost * has(ReadFormat.LOST),
    )
    assert decode(kernel_words(reading, read_format, siblings), read_format) == expected


def test_a_fd_that_is_no_perf_event_is_refused_and_named() -> None:
    read_end, write_end = os.pipe()
    try:
        with pytest.raises(BrokerError, match="no perf event but pipe:") as caught:
            check(read_end)
    finally:
        os.close(read_end)
        os.close(write_end)
    assert caught.value.errno == errno.EINVAL
