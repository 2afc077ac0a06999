"""perfkeep.broker.permission: who may."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.broker.permission import check
from perfkeep.errors import BrokerError

UIDS = st.integers(1, 2**32 - 2)


@given(UIDS)
def test_the_owner_and_root_may(uid: int) -> None:
    check(uid, uid, "flight", "claim")
    check(0, uid, "flight", "claim")


@given(UIDS, UIDS | st.just(0))
def test_nobody_else_may(peer: int, owner: int) -> None:
    if peer == owner:
        return
    with pytest.raises(BrokerError, match=f"uid {peer} may not claim 'flight'.*{owner}") as caught:
        check(peer, owner, "flight", "claim")
    assert caught.value.errno == errno.EACCES
