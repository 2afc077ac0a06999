"""What tests with real events share: their instance's processes, and waiting for things."""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perfkeep.client import connection

NOBODY = 65534

Eventually = Callable[[Callable[[], object]], None]
AsNobody = Callable[[Callable[[], object]], Any]


class Running:
    """The instance that this test talks to; its daemons start with the first request."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def pids(self) -> tuple[int, int]:
        """Of the broker and of the keeper, as the lock names them."""
        words = Path(f"{self.socket}.lock").read_text().split()
        return int(words[1]), int(words[3])


@pytest.fixture
def running(instance: Path) -> Iterator[Running]:
    """This test's instance; the process's connection to it is closed afterwards."""
    yield Running(instance)
    connection.disconnect()


@pytest.fixture
def eventually() -> Eventually:
    """Asks again and again until the answer is yes, or 15 s have passed."""

    def wait(holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + 15
        while not holds():
            assert time.monotonic() < deadline, "it did not come true within 15 s"
            select.select([], [], [], 0.005)

    return wait


@pytest.fixture
def as_nobody() -> AsNobody:
    """Calls a function in a child that has given up root; gives what it returns."""

    def run(function: Callable[[], object]) -> Any:
        read_end, write_end = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                os.write(write_end, json.dumps(function()).encode())
            finally:
                os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as answer:
            said = answer.read()
        os.waitpid(pid, 0)
        assert said, "the child failed before it could say anything"
        return json.loads(said)

    return run
