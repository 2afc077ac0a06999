"""What a tracepoint's format file says of its fields. Pure, and the text may be anything."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import islice
from typing import Literal, NamedTuple

#: How the bytes of a field are to be read:
#:     int      one integer
#:     text     characters up to the first NUL
#:     ints     integers, as many as the declaration or the length says
#:     bytes    anything else
Form = Literal["int", "text", "ints", "bytes"]
#: Where they are: in place; or where a u32 at that place says, from the start of the sample's own
#: bytes (__data_loc) or from the end of that u32 (__rel_loc).
Place = Literal["here", "data_loc", "rel_loc"]

_FIELD = re.compile(
    r"field:([^;\n]{1,256});\s{0,8}offset:(\d{1,6});\s{0,8}size:(\d{1,6});(?:\s{0,8}signed:([01]);)?"
)
_NAME = re.compile(r"[A-Za-z_]\w*\Z", re.ASCII)
_CHAR = re.compile(r"(?:const\s+)?(?:unsigned\s+|signed\s+)?char")
#: Bytes of one element of an array, by its type's last word.
_WIDTHS = {
    "char": 1, "u8": 1, "s8": 1, "__u8": 1, "__s8": 1, "uint8_t": 1, "int8_t": 1, "bool": 1,
    "short": 2, "u16": 2, "s16": 2, "__u16": 2, "__s16": 2, "uint16_t": 2, "int16_t": 2,
    "int": 4, "u32": 4, "s32": 4, "__u32": 4, "__s32": 4, "uint32_t": 4, "int32_t": 4,
    "unsigned": 4, "long": 8, "u64": 8, "s64": 8, "__u64": 8, "__s64": 8, "uint64_t": 8,
    "int64_t": 8, "cpumask_t": 8,
}  # fmt: skip
_SIGNED = re.compile(r"^(?:signed |s\d|__s\d|int\d|(?:long|int|short|char)\b)")
#: Fields; with those of every sample no more than records.decode takes.
_MOST = 960


class Field(NamedTuple):
    """One field.

    Attributes:
        offset, size: of what lies in place, in bytes from the start of the sample's own bytes.
        width: of the integer, or of one element, in bytes.
    """

    name: str
    form: Form
    place: Place
    offset: int
    size: int
    width: int
    signed: bool


class _Declared(NamedTuple):
    """ "__data_loc unsigned long *[] name[6]" in its parts; a regular expression for all of them at
    once would take minutes for hostile ones.
    """

    location: str | None
    type: str
    pointer: bool
    name: str
    elements: str | None


def _declared(text: str) -> _Declared | None:
    words, count = " ".join(text.split()), None
    location = next((one for one in ("data", "rel") if words.startswith(f"__{one}_loc ")), None)
    if location is not None:
        words = words.partition(" ")[2]
    if words.endswith("]") and "[" in words:
        words, _, count = words[:-1].rpartition("[")
    words = words.rstrip()
    name = _NAME.search(words)
    if name is None:
        return None
    type = words[: name.start()].rstrip().removesuffix("[]").rstrip()
    pointer = type.endswith("*")
    return _Declared(location, type.rstrip("* "), pointer, name[0], count)


def _field(declared: str, offset: int, size: int, signed: bool) -> Field | None:
    found = _declared(declared)
    if found is None:
        return None
    location, type, pointer, name, count = found
    if location is not None:
        place: Place = "data_loc" if location == "data" else "rel_loc"
        if _CHAR.fullmatch(type):
            return Field(name, "text", place, offset, size, 1, False)
        words = type.split()
        width = _WIDTHS.get(words[-1], 0) if words else 0
        if width and not pointer:
            return Field(name, "ints", place, offset, size, width, bool(_SIGNED.match(type)))
        return Field(name, "bytes", place, offset, size, 1, False)
    if count is None and size in (1, 2, 4, 8):
        return Field(name, "int", "here", offset, size, size, signed)
    if count is not None and _CHAR.fullmatch(type) and not pointer:
        return Field(name, "text", "here", offset, size, 1, False)
    width = 8 if pointer else _WIDTHS.get(type.split()[-1] if type.split() else "", 0)
    if count is not None and count.isdecimal() and int(count) and size % int(count) == 0:
        width = size // int(count)
    if count is not None and width in (1, 2, 4, 8) and size and size % width == 0:
        return Field(name, "ints", "here", offset, size, width, signed)
    return Field(name, "bytes", "here", offset, size, 1, False)


@lru_cache(maxsize=4096)
def fields(format: str) -> tuple[Field, ...]:
    """All that can be understood, in the order of the text, each name once; the first 960, which
    are several times what any tracepoint has.
    """
    found: dict[str, Field] = {}
    for declared, offset, size, signed in _FIELD.findall(format):
        one = _field(declared, int(offset), int(size), signed == "1")
        if one is not None and (one.place == "here" or one.size == 4):
            found.setdefault(one.name, one)
    return tuple(islice(found.values(), _MOST))
