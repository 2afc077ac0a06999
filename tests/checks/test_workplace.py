"""Rules of the house that no other tool looks after."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONGEST = 400

#: Files that may be longer, and why.
LONG_FOR_A_REASON = {
    "src/perfkeep/records/_walk.c": "all that is compiled is one source against the stable ABI",
}

PYTHON_FILES = sorted(
    path
    for folder in ("src", "tests", "bench", "chaos")
    for path in (ROOT / folder).rglob("*.py")
    if ".mypy_cache" not in path.parts
)
SOURCES = [*PYTHON_FILES, *sorted((ROOT / "src").rglob("*.[ch]"))]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_a_long_file_has_a_reason() -> None:
    lengths = {named(path): len(path.read_text().splitlines()) for path in SOURCES}
    long = {name: lines for name, lines in lengths.items() if lines > LONGEST}
    unlisted = {name: lines for name, lines in long.items() if name not in LONG_FOR_A_REASON}
    assert not unlisted, f"split them (over {LONGEST} lines), or list the reason"
    assert not LONG_FOR_A_REASON.keys() - long.keys(), "short now: take them off the list"


def test_a_module_opens_by_saying_what_it_is_for() -> None:
    trees = {named(path): ast.parse(path.read_text()) for path in PYTHON_FILES}
    silent = [name for name, tree in trees.items() if tree.body and not ast.get_docstring(tree)]
    assert not silent, "these have no docstring"


def test_no_test_sleeps() -> None:
    sleeps = [
        f"{named(path)}:{node.lineno}"
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "sleep")
    ]
    assert not sleeps, "wait for what you wait for, with a deadline"


def test_the_lock_file_names_the_public_index_only() -> None:
    hosts = set(re.findall(r'https?://([^/"]+)', (ROOT / "uv.lock").read_text()))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}


def test_every_make_target_that_is_promised_exists() -> None:
    text = (ROOT / "Makefile").read_text()
    promised = re.findall(r"echo 'make (\w+)", text)
    assert {"setup", "test", "demo", "bench"} <= set(promised)
    for target in promised:
        assert re.search(rf"^{target}:", text, re.MULTILINE), f"make {target} does not exist"
