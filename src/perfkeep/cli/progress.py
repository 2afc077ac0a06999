"""Tells a person on a terminal how far long work is; says nothing where stderr is none."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import BinaryIO

_ERASE = "\r\x1b[K"
_EVERY = 0.2


class Progress:
    """One line on stderr, which is gone at the end."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = False
        self._next = 0.0

    def stage(self, text: str) -> None:
        """What begins now."""
        self._next = time.monotonic() + _EVERY
        if self._terminal:
            self._shown = True
            print(f"{_ERASE}{text} …", end="", file=sys.stderr, flush=True)

    def step(self, text: str) -> None:
        """How far it is: shown some times a second."""
        if self._terminal and time.monotonic() >= self._next:
            self.stage(text)

    def rings(self, done: int, total: int) -> None:
        self.step(f"reading ring {done} of {total}")

    def erase(self) -> None:
        """Before something else is printed."""
        if self._shown:
            self._shown = False
            print(_ERASE, end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.erase()


def watch_downloads() -> None:
    """Tell of debug files that come from servers, as that may take minutes."""
    if not sys.stderr.isatty() or not os.environ.get("DEBUGINFOD_URLS"):
        return
    from perfkeep.symbols import debuginfod

    progress = Progress()
    debuginfod.watch = lambda text: progress.step(text) if text else progress.erase()


class Watched:
    """A file whose progress is told as it is written."""

    def __init__(self, out: BinaryIO, progress: Progress) -> None:
        self._out, self._progress = out, progress
        self._written = 0

    def write(self, data: bytes | memoryview) -> int:
        self._written += memoryview(data).nbytes
        self._progress.step(f"writing, {self._written >> 20} MiB")
        return self._out.write(data)
