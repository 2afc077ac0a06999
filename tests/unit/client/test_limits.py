"""perfkeep.client.limits: which rings can be, and which limit says no."""

from __future__ import annotations

import errno
import mmap
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.client import limits
from perfkeep.client.limits import check_ring, default_ring
from perfkeep.errors import KernelRefused, PerfkeepError, UsageError
from perfkeep.kernel.ring_limit import RingLimit
from perfkeep.units import parse_size
from perfkeep.wire.sideband import RING_BYTES

PAGE = mmap.PAGESIZE


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ring_limit", lambda: None)
    monkeypatch.setattr(limits, "_available_memory", lambda: 1 << 40)


@pytest.mark.usefixtures("unlimited")
@pytest.mark.parametrize("size", [PAGE, 512 << 10, 8 << 20, 1 << 30])
def test_powers_of_two_pages_are_taken(size: int) -> None:
    assert check_ring(size, 2) == size


@given(st.integers(-(1 << 20), 1 << 30))
def test_anything_else_is_refused_with_the_nearest_sizes(size: int) -> None:
    if size >= PAGE and size & (size - 1) == 0:
        return
    with pytest.raises(UsageError) as caught:
        check_ring(size, 1)
    assert caught.value.errno == errno.EINVAL
    assert re.fullmatch(r"start it with --ring [0-9.]+[KMG]( or.*)?", caught.value.hint)


@pytest.mark.usefixtures("unlimited")
def test_the_nearest_sizes_are_the_next_below_and_above() -> None:
    with pytest.raises(UsageError) as caught:
        check_ring(5 << 20, 1)
    assert caught.value.hint == "start it with --ring 4M or 8M"


@given(
    size=st.integers(-(1 << 20), 1 << 42),
    cpu_count=st.integers(1, 64),
    limit=st.none() | st.integers(1 << 13, 1 << 34),
    available=st.integers(1 << 13, 1 << 36),
)
def test_a_hint_names_a_ring_that_passes(
    size: int, cpu_count: int, limit: int | None, available: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        allowed = None if limit is None else RingLimit(limit, 2 * limit)
        patch.setattr(limits, "ring_limit", lambda: allowed)
        patch.setattr(limits, "_available_memory", lambda: available)
        try:
            check_ring(size, cpu_count)
        except PerfkeepError as error:
            for word in re.findall(r"[0-9.]+[KMG]", error.hint):
                check_ring(parse_size(word), cpu_count)
            assert (
                error.hint
                or available < 2 * PAGE * cpu_count
                or (limit or 0) < 2 * PAGE * cpu_count
            )


@pytest.mark.usefixtures("unlimited")
def test_a_ring_beyond_the_kernels_own_limit_says_by_how_much() -> None:
    with pytest.raises(UsageError, match="limit is 1G per ring; 4G is 3G over it") as caught:
        check_ring(4 << 30, 1)
    assert caught.value.errno == errno.ENOMEM


@pytest.mark.usefixtures("unlimited")
def test_a_ring_beyond_the_users_limit_says_which_and_what_would_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "ring_limit", lambda: RingLimit(1 << 20, 0))
    words = r"more than this user may lock \(1M by .*mlock_kb"
    with pytest.raises(KernelRefused, match=words) as caught:
        check_ring(1 << 20, 2)
    assert caught.value.errno == errno.EPERM
    assert caught.value.hint == "start it with --ring 256K or less"
    assert check_ring(256 << 10, 2) == 256 << 10


@pytest.mark.usefixtures("unlimited")
def test_rings_that_do_not_fit_into_memory_say_how_much_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "_available_memory", lambda: 1 << 20)
    with pytest.raises(KernelRefused, match=re.escape("than the 1M of memory")) as caught:
        check_ring(1 << 20, 2)
    assert caught.value.errno == errno.ENOMEM


@given(limit=st.integers(1 << 17, 1 << 26), cpu_count=st.integers(1, 8))
def test_the_default_ring_is_the_largest_that_fits(limit: int, cpu_count: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "ring_limit", lambda: RingLimit(limit // 2, limit))
        size = default_ring(cpu_count)
    assert size & (size - 1) == 0
    beside = (RING_BYTES + PAGE) * cpu_count
    assert size == PAGE or (size + PAGE) * cpu_count + beside <= limit
    assert size == limits.DEFAULT_RING_BYTES or (2 * size + PAGE) * cpu_count + beside > limit


@pytest.mark.usefixtures("unlimited")
def test_without_a_limit_the_default_is_8_mib() -> None:
    assert default_ring(128) == 8 << 20
