"""perfkeep.broker.log: what the daemons say does not fill a disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perfkeep.broker import log
from perfkeep.broker.log import Trimmer


def test_a_long_log_is_put_aside_and_whoever_holds_it_open_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "MOST_BYTES", 100)
    path = tmp_path / "log"
    with open(path, "a") as held:
        for text in ("first", "second"):
            held.write(text * 100 + "\n")
            held.flush()
            Trimmer(str(path)).look()
        held.write("third\n")
    assert path.read_text() == "third\n"
    assert (tmp_path / "log.1").read_text() == "second" * 100 + "\n"
    assert (tmp_path / "log.1").stat().st_mode & 0o777 == 0o600


def test_a_short_log_stays_and_one_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "log"
    Trimmer(str(path)).look()
    path.write_text("short\n")
    Trimmer(str(path)).look()
    assert path.read_text() == "short\n" and os.listdir(tmp_path) == ["log"]


def test_it_is_not_looked_at_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MOST_BYTES", 0)
    path = tmp_path / "log"
    path.write_text("one\n")
    trimmer = Trimmer(str(path))
    trimmer.look()
    path.write_text("two\n")
    trimmer.look()
    assert path.read_text() == "two\n"
