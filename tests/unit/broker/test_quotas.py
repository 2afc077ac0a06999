"""perfkeep.broker.quotas: nobody takes more than their part, and is told by how much."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.broker import quotas
from perfkeep.broker.policy import Policy, Quota
from perfkeep.broker.registry import Recording, Registry
from perfkeep.errors import BrokerError
from perfkeep.wire.messages import Owner, Ring, Target

LIMITS = st.none() | st.integers(0, 50)
USER = 4242


def registry(count: int) -> Registry:
    """So many recordings of USER, without events or rings."""
    made = Registry()
    for number in range(count):
        owner, ring = Owner(USER, USER, 1, ""), Ring("backward", 4096)
        made.add(Recording(number + 1, f"r{number}", owner, ring, Target(), 0))
    return made


@given(LIMITS, LIMITS, LIMITS, st.integers(0, 5), st.integers(0, 60), st.integers(0, 60))
def test_what_is_within_every_limit_passes_and_nothing_else(
    recordings: int | None, events: int | None, rings: int | None, has: int, more: int, size: int
) -> None:
    policy = Policy(each=Quota(recordings, events, rings))
    asked = ((recordings, has + 1), (events, more), (rings, size))
    fits = all(limit is None or not amount or amount <= limit for limit, amount in asked)
    try:
        quotas.check(registry(has), USER, policy, 1, more, size)
    except BrokerError as error:
        assert not fits and error.errno == errno.EDQUOT
    else:
        assert fits


def test_the_limit_for_all_counts_everybody() -> None:
    with pytest.raises(BrokerError, match="all users together may have 2 recordings, has 2"):
        quotas.check(registry(2), 5, Policy(all=Quota(recordings=2)), 1, 0, 0)


def test_root_has_no_quota_of_its_own() -> None:
    quotas.check(registry(0), 0, Policy(each=Quota(0, 0, 0)), 1, 1, 1)


def test_a_stranger_gets_what_the_kernel_would_let_them_lock() -> None:
    stranger = quotas.default_for(USER, os.geteuid())
    assert stranger.rings is not None
    with open("/proc/sys/kernel/perf_event_mlock_kb") as file:
        assert stranger.rings % (int(file.read()) << 10) == 0
    assert quotas.default_for(os.geteuid(), os.geteuid()) == Quota()
