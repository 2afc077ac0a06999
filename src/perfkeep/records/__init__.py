"""From bytes to records: the walk (native where it was built), samples, summaries.

PERFKEEP_PURE=1 in the environment leaves the native walk out.
"""

from __future__ import annotations

import os
from types import ModuleType

from perfkeep.records import pure
from perfkeep.records.pure import Walk
from perfkeep.records.pure_decode import Buffer


def _native() -> ModuleType | None:
    if os.environ.get("PERFKEEP_PURE"):
        return None
    try:
        from perfkeep.records import _walk
    except ImportError:
        return None
    return _walk


_walker = _native()

#: Whether the compiled walk serves.
NATIVE = _walker is not None


def walk(data: memoryview | bytes, start: int, end: int, every: int = 256) -> Walk:
    """See records.pure.walk."""
    if _walker is None:
        return pure.walk(data, start, end, every)
    return Walk(*_walker.walk(data, start, end, every))


def first_chained(
    data: memoryview | bytes, start: int, ids: bytes, id_at: int = 8, id_back: int = 8
) -> int:
    """See records.pure.first_chained."""
    core = pure if _walker is None else _walker
    found: int = core.first_chained(data, start, ids, id_at, id_back)
    return found


def split(
    data: memoryview | bytes,
    start: int,
    end: int,
    id_at: int,
    ids: bytes,
    kinds: bytes,
    count: int,
) -> tuple[int, int, list[Buffer]]:
    """See records.pure.split."""
    core = pure if _walker is None else _walker
    found: tuple[int, int, list[Buffer]] = core.split(data, start, end, id_at, ids, kinds, count)
    return found


def decode(
    data: memoryview | bytes,
    places: Buffer,
    parts: bytes,
    fields: bytes,
    starts: Buffer,
    counts: Buffer,
    fits: Buffer,
    columns: tuple[Buffer, ...],
) -> bool:
    """See records.pure_decode.decode."""
    core = pure if _walker is None else _walker
    found: bool = core.decode(data, places, parts, fields, starts, counts, fits, columns)
    return found


def join(data: Buffer, places: Buffer, lengths: Buffer, out: Buffer) -> None:
    """See records.pure.join."""
    (pure if _walker is None else _walker).join(data, places, lengths, out)


def spell(texts: Buffer, begins: Buffer, numbers: Buffer) -> tuple[bytes, bytes]:
    """See records.pure.spell."""
    core = pure if _walker is None else _walker
    found: tuple[bytes, bytes] = core.spell(texts, begins, numbers)
    return found


def latest(changes: Buffer, whose: Buffer, times: Buffer, out: Buffer) -> None:
    """See records.pure.latest."""
    (pure if _walker is None else _walker).latest(changes, whose, times, out)


def hold(address: int, count: int, holder: object) -> None:
    """Have so many structs ArrowArray at this address keep `holder` alive, each until it is released.
    There is no pure way: whoever releases one may do it while a Python exception is on its way.
    """
    assert _walker is not None
    _walker.hold(address, count, holder)


def texts(data: Buffer, places: Buffer, lengths: Buffer) -> tuple[bytes, bytes, Buffer]:
    """See records.pure.texts."""
    core = pure if _walker is None else _walker
    found: tuple[bytes, bytes, Buffer] = core.texts(data, places, lengths)
    return found
