"""From addresses to names of functions: 100,000 different ones of one file, beside addr2line."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np

from bench.figure import Budget, Figure
from perfkeep.symbols.elf import image

COUNT = 100_000


def _largest() -> str:
    """Of the files that this process executes the one with most symbols."""
    maps = Path("/proc/self/maps").read_text()
    files = set(re.findall(r"r-xp .* (/\S+)$", maps, re.MULTILINE))
    found: str = max(files, key=lambda path: len(image(path).symbols))
    return found


def _theirs(path: str, addresses: list[int]) -> float | None:
    """Seconds."""
    if shutil.which("addr2line") is None:
        return None
    text = "\n".join(f"{one:#x}" for one in addresses)
    begin = time.perf_counter()
    subprocess.run(["addr2line", "-f", "-e", path], input=text, capture_output=True, text=True)
    return time.perf_counter() - begin


def measure() -> list[Figure]:
    path = _largest()
    starts = image(path).symbols.starts
    random = np.random.default_rng(1)
    some = random.integers(int(starts.min()), int(starts.max()), 2 * COUNT).astype("u8")
    addresses = np.unique(some)[:COUNT]
    begin = time.perf_counter()
    known = image(path)
    names = known.symbols.names_of(known.addresses(addresses))
    ours = time.perf_counter() - begin
    assert any(names)
    theirs = _theirs(path, addresses[: COUNT // 100].tolist())
    return [
        Figure(
            f"ms to name {len(addresses):,} addresses of {Path(path).name}, the file read anew",
            ours * 1000,
            "" if theirs is None else "addr2line, from a hundredth",
            None if theirs is None else theirs * 100_000,
            Budget("less than 1,000", ours * 1000, 1000),
        )
    ]
