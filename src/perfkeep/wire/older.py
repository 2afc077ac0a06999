"""Decode JSON that this version or one before it wrote: values, files and answers. Pure."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from perfkeep.wire.structs import Program, Target

Struct = TypeVar("Struct", bound=msgspec.Struct)

_ADOPTED = re.compile(r"as opened by process (\d{1,9}) \((.*)\)", re.DOTALL)


def decode(data: bytes | msgspec.Raw, type: type[Struct]) -> Struct:
    """A struct from its JSON.

    Raises:
        msgspec.DecodeError: no version wrote this. RecursionError: it is nested too deeply.
    """
    try:
        return msgspec.json.decode(data, type=type)
    except msgspec.ValidationError:
        document = msgspec.json.decode(data)
        if not _mend(document):
            raise
        return msgspec.convert(document, type, str_keys=True)


def _mend(document: Any) -> bool:
    """Replace each target that is text, as version 0.1 wrote it, by a struct."""
    if isinstance(document, list):
        return True in [_mend(item) for item in document]
    if not isinstance(document, dict):
        return False
    target = document.get("target")
    if isinstance(target, str):
        document["target"] = msgspec.to_builtins(target_of(target))
        return True
    return _mend([document.get(member) for member in ("recording", "recordings")])


def target_of(text: str) -> Target:
    """The target that version 0.1 worded like this. "CPU N" was an event of every task."""
    word, _, rest = text.partition(" ")
    if word == "pid" and re.fullmatch("[1-9][0-9]{0,8}", rest):
        return Target(pids=[int(rest)])
    if word == "cgroup":
        return Target(cgroup=rest)
    if adopted := _ADOPTED.fullmatch(text):
        return Target(program=Program(int(adopted[1]), adopted[2]))
    return Target()
