"""Functions called as a user without any privilege."""

from __future__ import annotations

import json
import os
import pkgutil
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any, Protocol

import perfkeep

NOBODY = 65534


class AsNobody(Protocol):
    """The `as_nobody` fixture."""

    def __call__(self, function: Callable[[], object], groups: Sequence[int] = ()) -> Any: ...


@cache
def load_perfkeep() -> None:
    """Import every module now: the clone may lie below a folder that is closed to NOBODY."""
    for module in pkgutil.walk_packages(perfkeep.__path__, "perfkeep."):
        if not module.name.endswith("__main__"):
            with suppress(ImportError):  # an extra that is not installed
                import_module(module.name)


def as_nobody(function: Callable[[], object], groups: Sequence[int] = ()) -> Any:
    """Call a function in a child that has given up root; returns its result, by way of JSON.

    Raises:
        AssertionError: the function failed, with its traceback.
    """
    load_perfkeep()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups(groups)
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            answer = {"result": function()}
        except BaseException:
            answer = {"failure": traceback.format_exc()}
        try:
            os.write(write_end, json.dumps(answer).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    assert text, "the child ended without an answer"
    said = json.loads(text)
    assert "result" in said, said["failure"]
    return said["result"]
