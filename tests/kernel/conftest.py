"""What tests with real events share: their instance's processes, and waiting for things."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import perfkeep
from support import nobody, user
from support.caller import Caller, Callers
from support.instance import Running
from support.nobody import AsNobody
from support.user import User


@pytest.fixture
def caller() -> Iterator[Callers]:
    """Starts callers, and ends them."""
    callers: list[Caller] = []

    def start(cpu: int | None = None) -> Caller:
        callers.append(Caller(cpu))
        return callers[-1]

    yield start
    for process in callers:
        process.end()


@pytest.fixture
def as_nobody() -> AsNobody:
    """Calls a function in a child that has given up root."""
    return nobody.as_nobody


@pytest.fixture
def reachable(running: Running) -> Iterator[Running]:
    """The instance in a folder that others may pass through."""
    running.socket.parent.chmod(0o711)
    yield running


@pytest.fixture
def flight(running: Running) -> Iterator[perfkeep.Recording]:
    yield perfkeep.start("flight", ["cpu-clock/freq=100/"], cpus=[0], ring="64K")


@pytest.fixture
def guest() -> Iterator[User]:
    """A user without privilege, who has an instance of their own."""
    with user.user() as guest:
        yield guest
