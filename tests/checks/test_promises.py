"""docs/reliability.md and SECURITY.md: every promise names the test that holds it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNEL = ROOT / "tests/kernel"
PAGES = ("docs/reliability.md", "SECURITY.md")

_NAMED = re.compile(r"([\w./]+\.py)::(\w+)")


def rows(page: str) -> list[str]:
    """The rows of tables that have a column of tests."""
    found, wanted = [], False
    for line in (ROOT / page).read_text().splitlines():
        if not line.startswith("|"):
            wanted = False
        elif line.rstrip(" |").endswith("| test"):
            wanted = True
        elif wanted and not line.startswith("|---"):
            found.append(line)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_promise_names_a_test(page: str) -> None:
    assert len(rows(page)) > 10
    assert not [row for row in rows(page) if ".py" not in row]


NAMED = [(page, *found) for page in PAGES for row in rows(page) for found in _NAMED.findall(row)]


@pytest.mark.parametrize(("page", "file", "name"), NAMED, ids=[one[2] for one in NAMED])
def test_the_test_that_holds_a_promise_exists(page: str, file: str, name: str) -> None:
    tree = ast.parse((KERNEL / file).resolve().read_text())
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert name in functions, f"{page} names {file}::{name}, which is not there"
