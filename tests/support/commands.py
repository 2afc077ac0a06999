"""Commands as a test runs them: perfkeep's verbs in this process, programs beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from perfkeep.cli.main import main

#: perfkeep as a program of its own.
PERFKEEP = [sys.executable, "-m", "perfkeep"]


class Ran:
    """Exit code and output of a command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


#: The `cli` fixture.
Cli = Callable[..., Ran]


def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """A function that runs a verb in this process."""

    def run(*words: object) -> Ran:
        capsys.readouterr()
        try:
            code = main(list(map(str, words)))
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Ran(code, *capsys.readouterr())

    return run


def ours(*words: object) -> str:
    """Output of perfkeep as a program of its own, which has to succeed."""
    command = [*PERFKEEP, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def perf(*words: object) -> str:
    """Output of stock perf, which has to succeed and to print no warning."""
    done = subprocess.run(
        ["perf", *map(str, words)],
        capture_output=True, text=True, errors="replace", timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), words
    return done.stdout
