"""The examples in README.md and docs/: commands are ones that the CLI takes, code runs.

What is looked at: in ```console blocks the lines `$ perfkeep …` and `$ make …`; ```python blocks.
The python blocks of a page are one program, in their order, because a later block uses what an
earlier one made. `<!-- no-run -->` on the line before a block keeps it out of the program; it
must compile all the same.
"""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from perfkeep.testing.requirements import perf_events, requires, root, tracefs

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NO_RUN = "<!-- no-run -->"


class Block(NamedTuple):
    language: str
    line: int  # of its first line of text, counted from 1
    lines: list[str]
    run: bool

    def source(self) -> str:
        """The code alone; of a transcript (`>>>`) what was typed."""
        text = "\n".join(self.lines) + "\n"
        return doctest.script_from_examples(text) if text.lstrip().startswith(">>>") else text


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    before, lines = "", page.splitlines()
    numbered = iter(enumerate(lines, 1))
    for number, line in numbered:
        fence = re.match(r"(\s*)```(\w*)\s*$", line)
        if fence:
            indent, language = fence.groups()
            text: list[str] = []
            for _, inner in numbered:
                if inner.strip() == "```":
                    break
                text.append(inner.removeprefix(indent))
            yield Block(language, number + 1, text, before.strip() != NO_RUN)
        if line.strip():
            before = line


def commands(block: Block) -> Iterator[tuple[int, list[str]]]:
    """The simple commands that a console block types, each with its line in the page."""
    lines = iter(enumerate(block.lines, block.line))
    for number, line in lines:
        if not line.startswith(("$ ", "# ")):
            continue
        typed = line[2:]
        while typed.endswith("\\"):
            typed = typed[:-1] + next(lines)[1].removeprefix("> ")
        for words in simple_commands(typed):
            yield number, words


def simple_commands(typed: str) -> Iterator[list[str]]:
    """A=1 sudo perfkeep ls > f | wc → ["perfkeep", "ls"], ["wc"]."""
    lexer = shlex.shlex(typed, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words: list[str] = []
    redirected = False
    for word in [*lexer, ";"]:
        if set(word) <= set("();|&\n"):
            while words and (words[0] == "sudo" or re.match(r"\w+=", words[0])):
                words.pop(0)
            if words:
                yield words
            words, redirected = [], False
        elif set(word) <= set("<>"):
            redirected = True
        elif redirected:
            redirected = False
        else:
            words.append(word)


def typed_in(page: Path, program: str) -> list[tuple[str, list[str]]]:
    """("README.md:17", words) of every command of the page that starts with `program`."""
    return [
        (f"{page.relative_to(ROOT)}:{number}", words[1:])
        for block in blocks(page.read_text())
        if block.language == "console"
        for number, words in commands(block)
        if words[0] == program
    ]


def test_the_commands_of_a_block_are_found() -> None:
    page = (
        "```console\n$ sudo perfkeep ls --json | jq . > f\nout\n$ A=1 perfkeep \\\n> stat x\n```\n"
    )
    (block,) = blocks(page)
    assert list(commands(block)) == [
        (2, ["perfkeep", "ls", "--json"]),
        (2, ["jq", "."]),
        (4, ["perfkeep", "stat", "x"]),
    ]


def test_the_readme_shows_the_commands() -> None:
    assert typed_in(ROOT / "README.md", "perfkeep"), "README.md has no ```console with perfkeep"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_on_the_page_is_one_that_the_cli_takes(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from perfkeep.cli.main import parser

    for place, words in typed_in(page, "perfkeep"):
        try:
            parser().parse_args(words)
        except SystemExit as ended:  # argparse's way; --help and --version end with 0
            said = capsys.readouterr().err.strip()
            assert not ended.code, f"{place}: perfkeep {shlex.join(words)}: {said}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_on_the_page_exists(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for place, words in typed_in(page, "make"):
        for word in words:
            assert "=" in word or word in targets, f"{place}: make {word} does not exist"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_on_the_page_compiles(page: Path) -> None:
    for block in blocks(page.read_text()):
        if block.language == "python":
            compile("\n" * (block.line - 1) + block.source(), str(page), "exec")


def with_code() -> list[Path]:
    return [page for page in PAGES if page.exists() and program_of(page)]


def program_of(page: Path) -> str:
    """The page with everything but the python to be run made blank, so that line numbers hold."""
    program: list[str] = []
    for block in blocks(page.read_text()):
        if block.language == "python" and block.run:
            program += [""] * (block.line - 1 - len(program))
            program += block.source().rstrip().splitlines()
    return "\n".join(program)


@requires(perf_events, tracefs, root)
@pytest.mark.parametrize("page", with_code(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_on_the_page_runs(
    page: Path, instance: Path, tmp_path: Path, tracefs_mounted: Path
) -> None:
    program = f"exec(compile({program_of(page)!r}, {str(page)!r}, 'exec'))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
