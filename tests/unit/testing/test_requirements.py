"""perfkeep.testing.requirements: skipping with a reason, failing where it is demanded."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.testing.requirements import REQUIRE, Need, demanded, missing, requires

there = Need("there", lambda: None)
absent = Need("absent", lambda: "it was never built")


def test_what_is_there_does_not_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REQUIRE, raising=False)
    assert requires(there).mark.args == (False,)


def test_what_is_missing_skips_with_its_name_and_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REQUIRE, raising=False)
    mark = requires(there, absent).mark
    assert mark.args == (True,)
    assert mark.kwargs == {"reason": "absent: it was never built"}


@pytest.mark.parametrize("text", ["absent", "there, absent", "all"])
def test_what_is_demanded_and_missing_fails(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRE, text)
    with pytest.raises(pytest.fail.Exception, match="absent: it was never built"):
        requires(there, absent)


def test_a_demand_for_something_else_does_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRE, "there")
    assert requires(there, absent).mark.args == (True,)


@given(st.text(alphabet=", \tabcdefghijklmnopqrstuvwxyz_"))
def test_a_need_is_demanded_by_its_whole_name_only(text: str) -> None:
    names = [name.strip() for name in text.split(",")]
    assert (absent in demanded([absent], text)) == ("absent" in names or "all" in names)


def test_a_machine_is_looked_at_once() -> None:
    looks: list[int] = []
    need = Need("counted", lambda: looks.append(1))
    assert missing([need, need]) is None
    assert need.probe() is None
    assert len(looks) == 1


def test_the_module_can_be_imported_without_pytest() -> None:
    program = "import perfkeep.testing.requirements, sys; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
