"""perfkeep.broker.permission: who may."""

from __future__ import annotations

import errno
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.broker.permission import (
    Level,
    check,
    check_access,
    check_start,
    find,
    level,
    sees,
)
from perfkeep.broker.policy import Policy
from perfkeep.broker.registry import Recording, Registry
from perfkeep.errors import BrokerError
from perfkeep.wire.messages import Access, Owner, Ring, Target
from perfkeep.wire.socket import Peer

UIDS = st.integers(1, 2**32 - 2)
GIDS = st.integers(1, 50)
MODES = st.integers(0, 0o777).map(lambda bits: bits & 0o666)


def recording(uid: int, gid: int = 7, mode: int = 0o600, name: str = "flight") -> Recording:
    made = Recording(1, name, Owner(uid, gid, 1, "x"), Ring("backward", 4096), Target(), 0)
    made.mode = mode
    return made


def peer(uid: int, gid: int = 99, *groups: int) -> Peer:
    return Peer(1, uid, gid, frozenset(groups))


@given(UIDS, MODES)
def test_the_owner_and_root_own_whatever_the_mode(uid: int, mode: int) -> None:
    assert level(peer(uid), recording(uid, mode=mode)) == Level.OWN
    assert level(peer(0), recording(uid, mode=mode)) == Level.OWN


@given(UIDS, UIDS, GIDS, st.frozensets(GIDS), GIDS, MODES)
def test_the_bits_decide_for_others_as_they_do_for_files(
    uid: int, owner: int, gid: int, groups: frozenset[int], group: int, mode: int
) -> None:
    if uid == owner:
        return
    found = level(Peer(1, uid, gid, groups), recording(owner, group, mode))
    of_group = group in groups | {gid}
    read = bool(mode & (stat.S_IRGRP if of_group else stat.S_IROTH))
    write = bool(mode & (stat.S_IWGRP if of_group else stat.S_IWOTH))
    assert (found >= Level.CONTROL) == write
    assert (found >= Level.READ) == (read or write)
    assert found < Level.OWN
    assert sees(Peer(1, uid, gid, groups), recording(owner, group, mode)) == (read or write)


def test_a_refusal_says_who_may_not_do_what_and_whose_it_is() -> None:
    words = "uid 5 may not claim 'flight': it belongs to uid 6, group 7, mode 0600"
    with pytest.raises(BrokerError, match=words) as caught:
        check(peer(5), recording(6), Level.OWN, "claim")
    assert caught.value.errno == errno.EACCES


def test_an_unknown_name_comes_with_close_ones_but_only_with_those_that_may_be_seen() -> None:
    registry = Registry()
    registry.add(recording(6))
    with pytest.raises(BrokerError) as caught:
        find(registry, peer(6), "fligth", Level.READ, "look at")
    assert caught.value.errno == errno.ENOENT
    assert caught.value.hint == "did you mean flight?"
    with pytest.raises(BrokerError) as caught:
        find(registry, peer(5), "fligth", Level.READ, "look at")
    assert caught.value.hint == "perfkeep ls shows what there is"


def test_in_somebody_elses_instance_only_policy_lets_one_start() -> None:
    check_start(peer(1000), 1000, Policy())
    check_start(peer(0), 1000, Policy())
    check_start(peer(5), 0, Policy(start=frozenset({5})))
    check_start(peer(5, 99, 20), 0, Policy(start_groups=frozenset({20})))
    with pytest.raises(BrokerError, match="an instance of your own") as caught:
        check_start(peer(5), 0, Policy())
    assert caught.value.errno == errno.EACCES


def test_sharing_needs_an_administrator() -> None:
    check_access(peer(5), 5, Access(mode=0o600), Policy())
    check_access(peer(5), 5, Access(mode=0o644), Policy(share=True))
    check_access(peer(0), 5, Access(mode=0o666), Policy())
    with pytest.raises(BrokerError, match="share = true") as caught:
        check_access(peer(5), 5, Access(mode=0o640), Policy())
    assert caught.value.errno == errno.EPERM


def test_only_root_gives_away_and_groups_are_ones_own() -> None:
    check_access(peer(0), 5, Access(uid=6, gid=60), Policy())
    check_access(peer(5, 99, 60), 5, Access(uid=5, gid=60), Policy())
    for wanted in (Access(uid=6), Access(gid=60)):
        with pytest.raises(BrokerError) as caught:
            check_access(peer(5), 5, wanted, Policy(share=True))
        assert caught.value.errno == errno.EPERM
