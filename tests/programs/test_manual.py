"""A program that was written from perf_persistent(2) alone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import perfkeep
from perfkeep.testing.requirements import compiler, perf_events, requires, seccomp_notification
from support.program import EXEC, compile_c

pytestmark = requires(perf_events, compiler, seccomp_notification)

MANUAL = Path(__file__).parents[2] / "src/perfkeep/man/perf_persistent.2"


@pytest.fixture
def keep(tmp_path: Path, instance: Path) -> str:
    """The program in EXAMPLES, compiled."""
    examples = re.findall(r"^\.EX\n(.*?)^\.EE", MANUAL.read_text(), re.MULTILINE | re.DOTALL)
    (program,) = (text for text in examples if "int main" in text)
    source = tmp_path / "keep.c"
    source.write_text(program.replace(r"\-", "-").replace(r"\e", "\\"))
    return str(compile_c(source, tmp_path / "keep"))


def run(*command: str) -> tuple[int, str, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_program_of_the_manual_page_works(keep: str) -> None:
    assert run(*EXEC, keep) == (0, "1\n", "")
    assert perfkeep.recordings()[0].info.state == "running"
    code, said, _ = run(*EXEC, keep, "1")
    assert code == 0 and re.fullmatch(r"[1-9]\d* ns\n", said)
    assert perfkeep.recordings() == []
    assert run(*EXEC, keep, "1") == (1, "", "perf_event_open: No such file or directory\n")


def test_without_exec_it_says_what_the_kernel_says(keep: str) -> None:
    assert run(keep) == (1, "", "PERF_EVENT_IOC_UNCLAIM: Inappropriate ioctl for device\n")
