"""docs/contract.md, the manual page and the tests say the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "tests/programs"
PAGE = (ROOT / "docs/contract.md").read_text()
MANUAL = (ROOT / "src/perfkeep/man/perf_persistent.2").read_text()

_ERRNO = re.compile(r"\bE[A-Z]{2,}\b")


def sections() -> dict[str, list[list[str]]]:
    """Heading → rows of its table: what happens, what it gives, the tests."""
    found: dict[str, list[list[str]]] = {}
    for part in PAGE.split("\n## ")[1:]:
        heading, *lines = part.splitlines()
        rows = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in lines
            if line[:1] == "|"
        ]
        found[heading] = rows[2:]
    return found


def manual_errors(heading: str) -> set[str]:
    """The errnos in ERRORS below a .SS."""
    errors = MANUAL.partition(".SH ERRORS")[2].partition(".SH VERSIONS")[0]
    for part in errors.split(".SS ")[1:]:
        title, _, text = part.partition("\n")
        if title.strip('"') == heading:
            tags = re.findall(r"^\.TP\n(.*)$", text, re.MULTILINE)
            return set(_ERRNO.findall(" ".join(tags)))
    raise AssertionError(f"the manual page has no errors of {heading}")


NAMED = [
    (row[0], name) for rows in sections().values() for row in rows for name in row[2].split(", ")
]


@pytest.mark.parametrize(("case", "name"), NAMED, ids=[name for _, name in NAMED])
def test_the_test_that_holds_a_row_exists(case: str, name: str) -> None:
    path, _, function = name.partition("::")
    tree = ast.parse((PROGRAMS / path).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, case


def test_every_test_of_the_contract_holds_a_row() -> None:
    tree = ast.parse((PROGRAMS / "test_contract.py").read_text())
    tests = {f"test_contract.py::{node.name}" for node in tree.body
             if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}  # fmt: skip
    others = {"test_contract.py::test_without_exec_the_kernel_knows_nothing_of_it",
              "test_contract.py::test_nested_execs_are_one"}  # fmt: skip
    assert tests - {name for _, name in NAMED} == others


@pytest.mark.parametrize(
    "heading",
    ["PERF_EVENT_IOC_UNCLAIM", "PERF_EVENT_IOC_CLAIM", "Opening a persistent event again", "mmap"],
)
def test_the_manual_page_names_the_errors_of_the_contract(heading: str) -> None:
    gives = " ".join(row[1] for row in sections()[heading])
    assert manual_errors(heading) == set(_ERRNO.findall(gives))


def test_a_row_that_names_an_errno_is_held_by_a_test_that_names_it() -> None:
    for rows in sections().values():
        for case, gives, tests in rows:
            for error in set(_ERRNO.findall(gives)):
                bodies = ""
                for name in tests.split(", "):
                    path, _, function = name.partition("::")
                    text = (PROGRAMS / path).read_text()
                    for node in ast.parse(text).body:
                        if isinstance(node, ast.FunctionDef) and node.name == function:
                            bodies += ast.get_source_segment(text, node) or ""
                assert error in bodies or error == "ENOMEM", case
