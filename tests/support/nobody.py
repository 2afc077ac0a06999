"""Functions called as a user without any privilege."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

NOBODY = 65534


class AsNobody(Protocol):
    """The `as_nobody` fixture."""

    def __call__(self, function: Callable[[], object], groups: Sequence[int] = ()) -> Any: ...


def as_nobody(function: Callable[[], object], groups: Sequence[int] = ()) -> Any:
    """Call a function in a child that has given up root; returns its result, by way of JSON."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups(groups)
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(write_end, json.dumps(function()).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as answer:
        result = answer.read()
    os.waitpid(pid, 0)
    assert result, "the child failed before it could answer"
    return json.loads(result)
