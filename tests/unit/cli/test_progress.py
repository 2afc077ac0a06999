"""How far long work is: told on a terminal, and nowhere else."""

from __future__ import annotations

import io
import os
import sys
from typing import BinaryIO, cast

import pytest

from perfkeep.cli import progress
from perfkeep.cli.progress import Progress, Watched, watch_downloads
from perfkeep.symbols import debuginfod


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_told_and_left_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Terminal()
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    out = io.BytesIO()
    with Progress() as shown:
        shown.stage("reading x")
        shown.rings(1, 2)
        Watched(cast(BinaryIO, out), shown).write(b"x" * (3 << 20))
    assert [one for one in said.getvalue().split("\r\x1b[K") if one] == [
        "reading x …", "reading ring 1 of 2 …", "writing, 3 MiB …",
    ]  # fmt: skip
    assert said.getvalue().endswith("\r\x1b[K") and len(out.getvalue()) == 3 << 20


def test_downloads_are_told_of_and_gone_when_they_are_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = Terminal()
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    monkeypatch.setattr(debuginfod, "watch", debuginfod.watch)
    monkeypatch.delenv("DEBUGINFOD_URLS", raising=False)
    watch_downloads()
    debuginfod.watch("nobody asked for this")
    assert not said.getvalue()
    monkeypatch.setenv("DEBUGINFOD_URLS", "http://x")
    watch_downloads()
    debuginfod.watch("getting x")
    debuginfod.watch("")
    assert said.getvalue() == "\r\x1b[Kgetting x …\r\x1b[K"


def test_a_terminal_is_not_flooded(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Terminal()
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr(progress, "_EVERY", 60.0)
    shown = Progress()
    shown.stage("reading x")
    with open(os.devnull, "wb") as null:
        for _ in range(100):
            Watched(null, shown).write(b"x")
    assert said.getvalue().count("\r") == 1


def test_nothing_is_told_where_stderr_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with Progress() as shown:
        shown.stage("reading x")
        shown.rings(1, 2)
    assert capfd.readouterr().err == ""
