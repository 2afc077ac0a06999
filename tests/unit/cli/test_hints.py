"""Every verb that reports an error reports its hint beside it."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path

import pytest

from perfkeep.cli.common import say_error
from perfkeep.cli.main import main
from perfkeep.errors import PerfkeepError, UsageError


def test_an_error_is_reported_with_what_it_is_of_and_its_hint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say_error(PerfkeepError(errno.EPERM, "it is refused", hint="ask root"), "a.toml:3: x")
    say_error(FileNotFoundError(errno.ENOENT, "No such file or directory", "/nope"))
    assert capsys.readouterr().err == (
        "perfkeep: a.toml:3: x: it is refused\nhint: ask root\n"
        "perfkeep: /nope: No such file or directory\n"
    )


def test_load_reports_the_hint_of_a_file_that_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.toml"
    path.write_text("recording = 3\n")
    assert main(["load", str(path)]) == 1
    message = f"perfkeep: {path}:1: recording is no table\nhint: write [recording.NAME]\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"2ELIFREP" + bytes(200), "this perf.data was written by a machine of the other byte"),
        (b"letter" * 50, "this is no perf.data file"),
    ],
)
def test_a_file_that_cannot_be_converted_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes, words: str
) -> None:
    path = tmp_path / "old.data"
    path.write_bytes(data)
    assert main(["convert", str(path), "-o", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith(f"perfkeep: {path}: {words}")


def test_a_traceback_shows_the_hint() -> None:
    error = UsageError("no mode", hint="write it like 0640")
    assert traceback.format_exception_only(error)[-1] == "hint: write it like 0640\n"
    error.hint = "look"
    assert traceback.format_exception_only(error)[-1] == "hint: look\n"
    error.hint = ""
    assert traceback.format_exception_only(error)[-1].endswith("no mode\n")
