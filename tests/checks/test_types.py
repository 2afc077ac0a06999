"""Types, by mypy --strict, with the settings of pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def mypy(*arguments: str) -> None:
    command = [sys.executable, "-m", "mypy", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"mypy {' '.join(arguments)}:\n{done.stdout}{done.stderr}", pytrace=False)


def test_the_package_is_typed_strictly() -> None:
    mypy()


def test_the_tests_and_the_bench_are_typed_strictly() -> None:
    mypy(
        "--explicit-package-bases",
        *(name for name in ("tests", "bench", "chaos") if (ROOT / name).is_dir()),
    )
