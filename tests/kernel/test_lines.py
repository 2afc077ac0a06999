"""Lines of source code and inlined functions of a program, as stock perf and its writer know them."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from support.commands import ours

pytest.importorskip("symbolic", reason="without the extra `lines` nobody reads DWARF")

from perfkeep.testing.requirements import perf_events, perf_tool, requires

pytestmark = requires(perf_events, perf_tool)

SOURCE = """static volatile unsigned long sink;
static inline __attribute__((always_inline)) void innermost(unsigned long n) {
    for (unsigned long i = 0; i < n; i++)
        sink += i * 3;
}
static inline __attribute__((always_inline)) void middle(unsigned long n) { innermost(n); }
__attribute__((noinline)) void outer(unsigned long n) { middle(n); }
int main(int count, char **words) { for (int i = 0; i < 200; i++) outer(count * 1000000); }
"""


@pytest.fixture(params=["-pie", "-no-pie"])
def recorded(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Samples with call chains of a program that perf recorded."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "work.c").write_text(SOURCE)
    flags = ["-g", "-O2", "-fno-omit-frame-pointer", "-Wl,--build-id", request.param]
    program = str(tmp_path / "work")
    subprocess.run(["cc", *flags, "-o", program, str(tmp_path / "work.c")], check=True)
    path = tmp_path / "x.data"
    command = ["perf", "record", "-q", "-g", "-e", "cpu-clock:u", "-o", str(path)]
    subprocess.run([*command, program], capture_output=True, check=True)
    return path


def test_a_function_that_was_compiled_into_another_is_seen(recorded: Path, tmp_path: Path) -> None:
    for _ in range(2):  # and again from what was kept
        folded = ours("export", str(recorded), "--to", "folded", "-o", "-")
        assert ";outer;middle;innermost " in folded
        assert list((tmp_path / "cache/perfkeep/lines").iterdir())


def test_what_was_kept_and_is_damaged_is_made_again(recorded: Path, tmp_path: Path) -> None:
    expected = ours("export", str(recorded), "--to", "folded", "-o", "-")
    for one in (tmp_path / "cache/perfkeep/lines").iterdir():
        one.write_bytes(one.read_bytes()[:100])
    assert ours("export", str(recorded), "--to", "folded", "-o", "-") == expected


def test_lines_are_those_that_perf_shows(recorded: Path) -> None:
    def shown(text: str) -> set[tuple[str, str]]:
        rows = text.splitlines()
        return {
            (row.split()[1].split("+")[0], below.strip())
            for row, below in pairwise(rows)
            if row.startswith("\t") and " outer" in row
        }

    fields = "+srcline"
    theirs = subprocess.run(
        ["perf", "script", "-i", str(recorded), "-F", fields],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found = shown(ours("script", str(recorded), "-F", fields))
    assert found and found == shown(theirs)
    assert all(line in ("work.c:3", "work.c:4") for _, line in found)
