"""Programs with and without frame pointers, recorded by stock perf."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from perfkeep.testing.requirements import perf_events, perf_tool, requires
from support.commands import Cli

pytestmark = requires(perf_events, perf_tool)

# The work's size is fixed, and large beside the loader's, which has no frame pointers.
SOURCE = """
static long table[4096];
__attribute__((noipa)) long leaf(long *p, long n)
{ long s = 0; for (long i = 0; i < n; i++) s += p[i & 4095] * (i ^ s); return s; }
__attribute__((noipa)) long outer(long *p, long a, long b)
{ long s = 0; for (long i = 0; i < a; i++) s += leaf(p + (s & 7), b) ^ leaf(p, i); return s; }
int main(void) { return outer(table, 3000, 200000) == 1; }
"""


def program(folder: Path, name: str, flag: str) -> str:
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    (folder / "work.c").write_text(SOURCE)
    path = str(folder / name)
    subprocess.run(["cc", "-O2", flag, "-o", path, str(folder / "work.c")], check=True)
    return path


def record(folder: Path, *programs: str) -> Path:
    path = folder / "x.data"
    perf = ["perf", "record", "-q", "-g", "-e", "cpu-clock:u", "-F", "499", "-o", str(path), "--"]
    subprocess.run([*perf, "sh", "-c", "; ".join(programs)], capture_output=True, check=True)
    return path


def test_of_two_programs_the_one_without_frame_pointers_is_named(cli: Cli, tmp_path: Path) -> None:
    whole = program(tmp_path, "whole", "-fno-omit-frame-pointer")
    broken = program(tmp_path, "broken", "-fomit-frame-pointer")
    file = record(tmp_path, whole, broken)
    ran = cli("report", file, "--tree", "-n", "99")
    (line,) = ran.err.splitlines()
    assert "broken" in line and "(in broken)" in line and "whole " not in line
    folded = cli("export", file, "--to", "folded", "-o", "-").out
    stacks = {line.rpartition(" ")[0] for line in folded.splitlines()}
    # A leaf function may have no frame of its own, which skips its caller.
    assert any(stack.startswith("whole;") and ";main;" in stack for stack in stacks)
    assert "broken;leaf" in stacks


def test_nothing_is_said_of_a_program_with_frame_pointers(cli: Cli, tmp_path: Path) -> None:
    file = record(tmp_path, f"exec {program(tmp_path, 'whole', '-fno-omit-frame-pointer')}")
    assert cli("report", file, "--by", "comm,sym").err == ""
