"""perfkeep.broker.policy: what an administrator may say, and what is refused."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.broker.policy import Policy, Quota, load, parse
from perfkeep.errors import PerfkeepError

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
_KEYS = st.sampled_from(["share", "start", "each_user", "all_users", "gc"]) | st.text(max_size=8)


def test_without_a_file_nobody_gets_more_than_the_kernel_gives(tmp_path: Path) -> None:
    policy = load(str(tmp_path / "none"))
    assert not policy.share and not policy.open_to_others and policy.owner_gone == "keep"
    assert not policy.may_start(1000, [1000])


def test_everything_that_can_be_said_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(
        'share = true\nstart = [17, "root", "@root"]\n'
        '[each_user]\nrecordings = 3\nevents = 40\nrings = "64M"\n'
        '[all_users]\nrings = 1024\n[gc]\nend_ended = true\nowner_gone = "no-account"\n'
    )
    assert load(str(path)) == Policy(
        path=str(path),
        share=True,
        start=frozenset({0, 17}),
        start_groups=frozenset({0}),
        each=Quota(3, 40, 64 << 20),
        all=Quota(rings=1024),
        end_ended=True,
        owner_gone="no-account",
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shar = true", "unknown key 'shar'"),
        ("share = 1", "true or false"),
        ('start = "root"', "a list"),
        ('start = ["nobody-has-this-name"]', "there is no user"),
        ('start = ["@nobody-has-this-name"]', "there is no group"),
        ("[each_user]\nring = 1", "unknown key 'ring' in each_user"),
        ('[each_user]\nrings = "much"', "is not a size"),
        ("[all_users]\nevents = -1", "not negative"),
        ("[gc]\nowner_gone = 'never'", "gc.owner_gone cannot be"),
        ("share = \nx = 1", "line 1"),
        ("\x80", "not obeyed"),
    ],
)
def test_a_mistake_is_refused_with_the_key_and_the_file(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(PerfkeepError, match="not obeyed") as caught:
        load(str(path))
    assert caught.value.errno == errno.EINVAL
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_a_file_that_others_can_change_is_not_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("share = true\n")
    path.chmod(0o666)
    with pytest.raises(PerfkeepError, match="can be changed by others") as caught:
        load(str(path))
    assert caught.value.errno == errno.EPERM


@given(st.dictionaries(_KEYS, _VALUES, max_size=4))
def test_whatever_it_says_is_a_policy_or_a_sentence(table: dict[str, Any]) -> None:
    try:
        assert isinstance(parse(table), Policy)
    except (ValueError, PerfkeepError) as error:
        assert str(error)
