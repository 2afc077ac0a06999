"""Style and form, by ruff, with the settings of pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = [name for name in ("src", "tests", "bench", "chaos") if (ROOT / name).is_dir()]


@pytest.mark.parametrize(
    "arguments",
    [["check", "--output-format=concise"], ["format", "--diff"]],
    ids=["the linter has nothing to say", "the formatter has nothing to change"],
)
def test_ruff_is_content(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "ruff", *arguments, *FOLDERS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"ruff {' '.join(arguments)}:\n{done.stdout}{done.stderr}", pytrace=False)
