"""The functions of a CPython that runs with -X perf have their names, in the order of their calls."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

import perfkeep
from perfkeep.analysis.stacks import stacks
from perfkeep.client.look import look
from perfkeep.testing.requirements import (
    cpython,
    perf_events,
    perf_tool,
    profiled_python,
    requires,
    root,
)

pytestmark = [requires(perf_events, perf_tool, root, cpython), pytest.mark.usefixtures("running")]

PROGRAM = """
import time

def spin(count):
    return sum(number * number % 7 for number in range(count))

def handle_request():
    return spin(20_000)

def serve(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        handle_request()

serve(1)
"""


@pytest.mark.parametrize("how", ["perf", "perf_jit"])
def test_python_functions_are_in_its_call_chains(tmp_path: Path, how: str) -> None:
    python = profiled_python()
    assert python is not None
    program, out = tmp_path / "service.py", tmp_path / "x.data"
    program.write_text(PROGRAM)
    recording = perfkeep.start("flight", ["cpu-clock/freq=999/"], ring="4M", call_chains=True)
    with subprocess.Popen([python, "-X", how, program]) as process:
        process.wait()
    made = [Path(f"/tmp/perf-{process.pid}.map"), Path(f"/tmp/jit-{process.pid}.dump")]
    try:
        recording.snapshot(str(out))
        found = stacks(look(str(out)), "cpu_clock", ["pid"])
        script = subprocess.run(
            ["perf", "script", "-i", out, "--pid", str(process.pid)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    finally:
        for one in made:
            one.unlink(missing_ok=True)
    seen: Counter[tuple[str, ...]] = Counter()
    for ((pid,), chain), count in found.samples.items():
        if pid == process.pid:
            names = [found.functions[one].name for one in chain]
            mine = [name for name in names if name.startswith("py::") and str(program) in name]
            seen[tuple(name.removeprefix("py::").partition(":")[0] for name in mine)] += count
    deepest = ("<module>", "serve", "handle_request", "spin", "spin.<locals>.<genexpr>")
    assert seen[deepest] > sum(seen.values()) / 2 > 300
    # Stock perf reads maps, and dumps only after `perf inject --jit`.
    if how == "perf":
        assert script.stdout.count(f"py::spin:{program}") >= seen[deepest]
