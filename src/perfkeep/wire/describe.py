"""The Varlink description of the interface, made from the same types that check it.

Asked for by org.varlink.service.GetInterfaceDescription; nothing else needs it.
"""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from perfkeep.wire.framing import FAILED, Failed
from perfkeep.wire.messages import INTERFACE, METHODS

_PLAIN = {int: "int", str: "string", bool: "bool", float: "float", bytes: "string"}


def varlink_type(hint: Any, found: dict[str, type[msgspec.Struct]]) -> str:
    """A Python type as Varlink writes it; structs are named, and collected in `found`.

    Raises:
        TypeError: Varlink has no such type.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return varlink_type(arguments[0], found)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if origin is list:
        return f"[]{varlink_type(arguments[0], found)}"
    if origin is dict:  # the keys of JSON objects are strings
        return f"[string]{varlink_type(arguments[1], found)}"
    if origin is Literal:
        return f"({', '.join(arguments)})"
    if origin in (Union, UnionType) and NoneType in arguments:
        return f"?{varlink_type(next(a for a in arguments if a is not NoneType), found)}"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        found.setdefault(hint.__name__, hint)
        return hint.__name__
    raise TypeError(f"Varlink has no type for {hint}")


def _fields(struct: type[msgspec.Struct], found: dict[str, type[msgspec.Struct]]) -> str:
    hints = get_type_hints(struct, include_extras=True)
    fields = [f"{name}: {varlink_type(hints[name], found)}" for name in struct.__struct_fields__]
    return f"({', '.join(fields)})"


def _comment(text: str | None) -> str:
    return "".join(f"# {line.strip()}".rstrip() + "\n" for line in (text or "").strip().split("\n"))


def describe() -> str:
    """The interface in Varlink's own language, comments included."""
    found: dict[str, type[msgspec.Struct]] = {}
    methods = [
        f"method {name}{_fields(parameters, found)} -> {_fields(result, found)}"
        for name, (parameters, result) in METHODS.items()
    ]
    types: dict[str, str] = {}
    while missing := [name for name in found if name not in types]:
        for name in missing:
            struct = found[name]
            types[name] = f"{_comment(struct.__doc__)}type {name} {_fields(struct, found)}"
    error = f"error {FAILED.rpartition('.')[2]} {_fields(Failed, found)}"
    head = _comment(
        'Persistent perf events. A message says in its member "fds" how many fds travel with it.'
    )
    return "\n\n".join([f"{head}interface {INTERFACE}", *types.values(), *methods, error]) + "\n"
