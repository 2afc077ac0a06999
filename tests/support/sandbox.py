"""A child that has entered the sandbox."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from typing import Any, Protocol

from perfkeep.kernel import sandbox


class Inside(Protocol):
    """The `inside` fixture."""

    def __call__(
        self,
        act: Callable[[], Any],
        paths: tuple[str, ...] = (),
        times: int = 1,
        before: Callable[[], object] = lambda: None,
    ) -> Any: ...


def inside(
    act: Callable[[], Any],
    paths: tuple[str, ...] = (),
    times: int = 1,
    before: Callable[[], object] = lambda: None,
) -> Any:
    """Call a function in a child that has entered the sandbox; returns its result, by way of JSON,
    or "ENAME" where the kernel refuses.

    Args:
        act: the function.
        paths: for sandbox.enter.
        times: how often the child enters.
        before: called before that.
    """
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
