"""A child that has entered the sandbox; what tests of it share."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from perfkeep.kernel import sandbox

Inside = Callable[..., Any]


@pytest.fixture
def inside() -> Inside:
    """Calls a function in a child that has entered; gives what it returns, or "ENAME" when the
    kernel refuses.

    Args of what it gives:
        act: the function.
        paths: for sandbox.enter.
        times: how often it enters.
        before: called before that.
    """

    def run(
        act: Callable[[], Any],
        paths: tuple[str, ...] = (),
        times: int = 1,
        before: Callable[[], object] = lambda: None,
    ) -> Any:
        read_end, write_end = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                before()
                for _ in range(times):
                    entered = sandbox.enter(paths)
                try:
                    said = act()
                except OSError as error:
                    said = errno.errorcode.get(error.errno or 0, str(error))
                os.write(write_end, json.dumps([str(entered), said]).encode())
            finally:
                os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as answer:
            text = answer.read()
        os.waitpid(pid, 0)
        assert text, "the child failed before it could say anything"
        entered, said = json.loads(text)
        assert "no filter" not in entered or "not known" in entered, entered
        return said

    return run
