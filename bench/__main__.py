"""`python -m bench [--write] [NAME…]`: measure, and print a table and JSON."""

from __future__ import annotations

import argparse
import compileall
import importlib
import json
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path

import perfkeep
from bench.figure import RUNS, Figure, table, worst

NAMES = (
    "missing",
    "snapshot_time",
    "idle",
    "reopen",
    "exec",
    "ls",
    "memory",
    "spill",
    "decode",
    "forks",
    "symbols",
)
PAGE = Path(__file__).parent.parent / "docs" / "measurements.md"
_BEGIN, _END = "<!-- measured: begin -->", "<!-- measured: end -->"


def machine() -> str:
    """The machine and programs that the figures are true of."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) >> 20
    perf = subprocess.run(["sh", "-c", "perf --version || true"], capture_output=True, text=True)
    return (
        f"{date.today()}, {os.cpu_count()} × {model}, {memory} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {perf.stdout.strip() or 'no perf'}"
    )


def write_page(figures: list[Figure]) -> None:
    """Replace what lies between the marks of docs/measurements.md."""
    text = PAGE.read_text()
    head, rest = text.split(_BEGIN)
    tail = rest.split(_END)[1]
    method = f"each row is the worst of {RUNS} runs for its budget, or without one the middle run"
    body = f"{_BEGIN}\nMeasured on {machine()}; {method}.\n\n{table(figures)}\n{_END}"
    PAGE.write_text(head + body + tail)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--write", action="store_true", help="update docs/measurements.md")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no measurement {unknown.pop()!r}; there are {', '.join(NAMES)}")
    # As pip leaves what it installs; here Python may have been told to write none.
    compileall.compile_dir(os.path.dirname(perfkeep.__file__), quiet=1)
    figures: list[Figure] = []
    for name in options.names or NAMES:
        runs = []
        for run in range(1, RUNS + 1):
            print(f"measuring {name}, run {run} of {RUNS} …", file=sys.stderr, flush=True)
            runs.append(importlib.import_module(f"bench.{name}").measure())
        figures += worst(runs)
    print(table(figures))
    document = {"machine": machine(), "figures": [figure.as_json() for figure in figures]}
    print(json.dumps(document, indent=2, ensure_ascii=False))
    if options.write:
        write_page(figures)
    return 0


raise SystemExit(main())
