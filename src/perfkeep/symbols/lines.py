"""Lines of source code, and functions that were compiled into others, from a file's DWARF.

symbolic reads it, if it is there: the extra `lines`. Going through a large file takes seconds, so what
it makes of one is kept by build id in ~/.cache/perfkeep/lines.
"""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

#: Files with more than this are left alone: reading them takes a minute and gigabytes.
_MOST_BYTES = 1 << 30


class Line(NamedTuple):
    """
    Attributes:
        function: as it was written, or mangled.
        file: "" where nobody knows.
        line: from 1 on; 0: nobody knows.
    """

    function: str
    file: str
    line: int


class Lines:
    """Of one file.

    Args:
        table: symbolic's SymCache.
        base: the lowest address of the file's segments.
    """

    def __init__(self, table: Any, base: int) -> None:
        self._table, self._base = table, base

    def at(self, address: int) -> list[Line]:
        """What is at one of the file's own addresses: the function that was inlined last comes first,
        and the one that all are in last; nothing where nobody knows.
        """
        if not self._base <= address < self._base + (1 << 32):
            return []  # of which symbolic's tables cannot tell
        return [
            Line(str(one.symbol), str(one.full_path or ""), int(one.line))
            for one in self._table.lookup(address - self._base)
        ]


def lines(path: str, base: int, build_id: str = "") -> Lines | None:
    """
    Args:
        path: of a plain ELF file with DWARF.
        build_id: in hex; "": nothing is kept on disk.

    Returns:
        None: symbolic is not there, or cannot read it.
    """
    try:
        from symbolic.debuginfo import Archive
        from symbolic.symcache import SymCache
    except ImportError:
        return None
    kept = f"{_folder()}/{build_id}" if build_id else ""
    table: Any = None
    if kept and os.path.exists(kept):
        table = _tried(lambda: SymCache.open(kept))  # type: ignore[no-untyped-call]
    if table is not None and table.is_latest_version:
        return Lines(table, base)
    if os.path.getsize(path) > _MOST_BYTES:
        return None
    table = _tried(lambda: next(iter(Archive.open(path).iter_objects())).make_symcache())
    if table is None:
        return None
    if kept:
        with suppress(OSError):  # then it is made again next time
            _keep(table, kept)
    return Lines(table, base)


def _tried(make: Callable[[], Any]) -> Any:
    """None: of what is damaged symbolic raises errors of many kinds, in frames that know the error and
    so would keep themselves, and what their callers hold, until the garbage collector comes.
    """
    try:
        return make()
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        return None


def _folder() -> str:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return f"{home}/perfkeep/lines"


def _keep(table: Any, path: str) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(path), delete=False) as file:
        try:
            table.dump_into(file)
            file.flush()
            os.rename(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
