"""perfkeep.client.upgrade: what it makes of the daemons that answer afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from perfkeep.client import upgrade
from perfkeep.errors import Unreachable
from perfkeep.wire import messages


def status(broker: int, keeper: int, version: str) -> messages.Status:
    pids = [messages.ProcessStatus(pid, 0, 0) for pid in (broker, keeper)]
    return messages.Status(
        "/s", "/s.log", version, 0, 0, 0, pids[0], pids[1], "/state", 0, 0, 0, [], "", []
    )


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[messages.Status]:
    said: list[messages.Status] = []
    monkeypatch.setattr(upgrade, "_is_alive", lambda where: True)
    monkeypatch.setattr(upgrade, "_check_that_it_runs", lambda package: None)
    monkeypatch.setattr(upgrade, "call", lambda *_: None)
    monkeypatch.setattr(upgrade, "disconnect", lambda: None)

    def next_one() -> Any:
        return said.pop(0)

    monkeypatch.setattr(upgrade, "_status", next_one)
    return said


def test_it_is_done_when_both_are_others(answers: list[messages.Status]) -> None:
    answers += [status(1, 2, "1"), status(1, 2, "1"), status(3, 4, "2")]
    assert upgrade.upgrade() == ("1", "2")


def test_a_broker_of_the_old_keeper_s_says_at_once_that_nothing_came_of_it(
    answers: list[messages.Status],
) -> None:
    answers += [status(1, 2, "1"), status(3, 2, "1")]
    with pytest.raises(Unreachable, match="goes on with the code of before"):
        upgrade.upgrade()
