"""Debug files from the servers that DEBUGINFOD_URLS names, debuginfod-client-config(7).

Without that variable nobody is asked. What comes is kept where elfutils and gdb(1) keep it, and serves
them as well: ~/.cache/debuginfod_client/BUILDID.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import BinaryIO, Literal

from perfkeep.symbols.build_id import of_file

#: Seconds that a server may be silent, unless DEBUGINFOD_TIMEOUT says another number.
_SILENT_S = 90.0
#: Bytes, unless DEBUGINFOD_MAXSIZE says another number.
_MOST_BYTES = 4 << 30
_BUILD_ID = re.compile(r"(?:[0-9a-f]{2}){8,32}")

What = Literal["debuginfo", "executable"]


def _nobody(_: str) -> None:
    pass


#: Told how far a download is, and "" when it is done; for whoever watches a terminal.
watch: Callable[[str], None] = _nobody


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
    from http.client import HTTPException
    from urllib.request import Request, urlopen

    for url in urls:
        if not url.startswith(("http://", "https://")):
            continue
        request = Request(
            f"{url.rstrip('/')}/buildid/{build_id}/{what}", headers={"User-Agent": "perfkeep"}
        )
        silent = _number("DEBUGINFOD_TIMEOUT", _SILENT_S)
        # What a server may say is of all three kinds, besides the file.
        with (
            suppress(OSError, HTTPException, ValueError),
            urlopen(request, timeout=silent) as answer,
        ):
            try:
                if _kept(answer, path, build_id):
                    return path
            finally:
                watch("")
    return ""


def _kept(answer: BinaryIO, path: str, build_id: str) -> bool:
    """
    Raises:
        OSError: it cannot be read or written.
        ValueError: it is too large.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(path)) as file:
        most, done = _number("DEBUGINFOD_MAXSIZE", _MOST_BYTES), 0
        while part := answer.read(1 << 20):
            done += len(part)
            if done > most:
                raise ValueError("more than DEBUGINFOD_MAXSIZE")
            watch(f"getting what names functions of {build_id[:12]}, {done / (1 << 20):.1f} MiB")
            file.write(part)
        file.flush()
        if not _is(file.name, build_id):
            return False
        with suppress(FileExistsError):  # another process was faster
            os.link(file.name, path)
        return True


def _is(path: str, build_id: str) -> bool:
    found = of_file(os.fsencode(path))
    return found is not None and found.hex() == build_id


def _cache() -> str:
    if path := os.environ.get("DEBUGINFOD_CACHE_PATH"):
        return path
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return f"{home}/debuginfod_client"


def _number(name: str, otherwise: float) -> float:
    try:
        return max(float(os.environ[name]), 0) or otherwise
    except (KeyError, ValueError):
        return otherwise
