"""docs/notebook.ipynb runs from its first cell to its last, and draws what it shipped with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("polars")

from perfkeep.testing.requirements import perf_events, requires, root, tracefs

pytestmark = [
    requires(perf_events, tracefs, root),
    pytest.mark.usefixtures("running", "tracefs_mounted"),
]

DOCS = Path(__file__).parents[2] / "docs"

# In a process of its own: what it starts, threads and sockets among it, ends with it.
RUN = """
import sys
import nbformat
from nbclient import NotebookClient
book = nbformat.read("notebook.ipynb", 4)
NotebookClient(book, timeout=120, kernel_name="python3").execute()
nbformat.write(book, sys.argv[1])
"""


def drawn(cell: Any) -> str:
    """The pictures among what a cell shows."""
    shown = [one["data"] for one in cell.get("outputs", []) if "data" in one]
    return "".join("".join(one.get("image/svg+xml", "")) for one in shown)


def test_the_notebook_draws_a_flame_graph_and_a_timeline(tmp_path: Path) -> None:
    shutil.copytree(DOCS / "tutorial", tmp_path / "tutorial")
    shutil.copy(DOCS / "notebook.ipynb", tmp_path)
    environment = {**os.environ, "JUPYTER_PLATFORM_DIRS": "1", "HOME": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", RUN, "done.ipynb"],
        cwd=tmp_path, env=environment, check=True, timeout=200,
    )  # fmt: skip
    for path in (tmp_path / "done.ipynb", DOCS / "notebook.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        timeline, flames = (drawn(cell) for cell in cells if drawn(cell))
        assert "worker" in timeline and "janitor" in timeline
        assert "crc32_z" in flames
        kinds = [one["output_type"] for cell in cells for one in cell.get("outputs", [])]
        assert "error" not in kinds
