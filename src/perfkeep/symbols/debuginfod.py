"""Debug files from the servers that DEBUGINFOD_URLS names, debuginfod-client-config(7).

Without that variable nobody is asked. What comes is kept where elfutils and gdb(1) keep it, and serves
them as well: ~/.cache/debuginfod_client/BUILDID.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import suppress
from functools import lru_cache
from typing import Literal

from perfkeep.symbols.build_id import of_file

#: Seconds that a server may be silent, unless DEBUGINFOD_TIMEOUT says another number.
_SILENT_S = 90.0
#: Bytes, unless DEBUGINFOD_MAXSIZE says another number.
_MOST_BYTES = 4 << 30
_BUILD_ID = re.compile(r"(?:[0-9a-f]{2}){8,32}")

What = Literal["debuginfo", "executable"]


def fetch(what: What, build_id: str) -> str:
    """The name of the file; "": nobody has it. A server that did not have it is not asked again while
    this process lives.

    Args:
        what: the file with what was stripped, or the file itself.
        build_id: in hex.
    """
    urls = os.environ.get("DEBUGINFOD_URLS", "").split()
    if not urls or not _BUILD_ID.fullmatch(build_id):
        return ""
    path = f"{_cache()}/{build_id}/{what}"
    if _is(path, build_id):
        return path
    return _fetched(tuple(urls), what, build_id, path)


@lru_cache(1 << 12)
def _fetched(urls: tuple[str, ...], what: What, build_id: str, path: str) -> str:
    from urllib.request import Request, urlopen

    for url in urls:
        if not url.startswith(("http://", "https://")):
            continue
        request = Request(
            f"{url.rstrip('/')}/buildid/{build_id}/{what}", headers={"User-Agent": "perfkeep"}
        )
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with (
                urlopen(request, timeout=_number("DEBUGINFOD_TIMEOUT", _SILENT_S)) as answer,
                tempfile.NamedTemporaryFile(dir=os.path.dirname(path)) as file,
            ):
                if int(answer.headers.get("Content-Length") or 0) > _most():
                    continue
                shutil.copyfileobj(_Bounded(answer), file)
                file.flush()
                if _is(file.name, build_id):
                    with suppress(FileExistsError):  # another process was faster
                        os.link(file.name, path)
                    return path
        except (
            OSError,
            ValueError,
        ):  # urllib's errors are of OSError, a broken length is of the other
            continue
    return ""


class _Bounded:
    """Reads so much of an answer and no more."""

    def __init__(self, answer: object) -> None:
        self._answer, self._left = answer, _most()

    def read(self, size: int = -1, /) -> bytes:
        found: bytes = self._answer.read(size)  # type: ignore[attr-defined]
        self._left -= len(found)
        if self._left < 0:
            raise ValueError("more than DEBUGINFOD_MAXSIZE")
        return found


def _is(path: str, build_id: str) -> bool:
    found = of_file(os.fsencode(path))
    return found is not None and found.hex() == build_id


def _cache() -> str:
    if path := os.environ.get("DEBUGINFOD_CACHE_PATH"):
        return path
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return f"{home}/debuginfod_client"


def _most() -> float:
    return _number("DEBUGINFOD_MAXSIZE", _MOST_BYTES) or _MOST_BYTES


def _number(name: str, otherwise: float) -> float:
    try:
        return max(float(os.environ[name]), 0) or otherwise
    except (KeyError, ValueError):
        return otherwise
