"""The man pages in src/perfkeep/man: they build, and say of each verb what its parser says.

Only what a program can compare is compared: verbs, options, exit codes, names of errors, commands
in examples. Whether the sentences are true is for people.
"""

from __future__ import annotations

import argparse
import ast
import errno
import inspect
import itertools
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from perfkeep.cli import main as cli
from perfkeep.testing.requirements import groff, requires

ROOT = Path(__file__).parents[2]
MAN = ROOT / "src/perfkeep/man"
PAGES = sorted(MAN.glob("*.[1-9]"))
FRONT = MAN / "perfkeep.1"

#: Words in capitals that begin with an E and are no errors: what options and columns are called.
NO_ERRORS = {"EVENT", "EVENTS", "EXPR"}

_OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")
_ESCAPES = {"\\-": "-", "\\(aq": "'", "\\&": "", "\\e": "\\"}


def page_of(verb: str) -> Path:
    return MAN / f"perfkeep-{verb}.1"


def source(page: Path) -> list[str]:
    """The lines of a page, or of the one that it stands for: ".so man1/perfkeep-claim.1"."""
    lines = page.read_text().splitlines()
    if lines[0].startswith(".so "):
        return source(MAN / Path(lines[0].removeprefix(".so ")).name)
    return lines


def plain(line: str) -> str:
    """A line of roff as it is read: `.BR perf (1),` is "perf(1),"."""
    line = re.sub(r"\\f[BIRP]", "", line)
    for escape, text in _ESCAPES.items():
        line = line.replace(escape, text)
    macro = re.match(r"\.([BIR]{1,2}) (.*)", line)
    if macro is None:
        return line
    words = [quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|(\S+)', macro[2])]
    return ("" if len(macro[1]) == 2 else " ").join(words)


def sections(page: Path) -> dict[str, list[str]]:
    """The lines below each heading, as they are read."""
    found: dict[str, list[str]] = {}
    heading = ""
    for line in source(page):
        if line.startswith(".SH "):
            heading = line.removeprefix(".SH ").strip('"')
        else:
            found.setdefault(heading, []).append(plain(line))
    return found


def tagged(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Each tag of a list, and the first line of what stands behind it."""
    for number, line in enumerate(lines):
        if line.startswith(".TP"):
            yield lines[number + 1], lines[number + 2]


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    return set(parser._option_string_actions)


def parser_of(verb: str) -> argparse.ArgumentParser:
    for action in cli.parser(verb)._actions:
        if isinstance(action, argparse._SubParsersAction):
            found = action.choices[verb]
            assert isinstance(found, argparse.ArgumentParser)
            return found
    raise AssertionError("the command line has no verbs")


def check_options(page: Path, parser: argparse.ArgumentParser) -> None:
    found = sections(page)
    tags = " ".join(tag for tag, _ in tagged(found["OPTIONS"]))
    described, known = set(_OPTION.findall(tags)), options_of(parser)
    assert not known - described, f"{page.name} does not describe these options"
    assert not described - known, f"{page.name} describes options that there are not"
    used = set(_OPTION.findall(" ".join(found["SYNOPSIS"])))
    assert not used - known, f"the synopsis of {page.name} has options that there are not"


def commands(page: Path) -> Iterator[list[str]]:
    """The words behind each "$ perfkeep" in the examples, up to what the shell does with it."""
    for line in sections(page).get("EXAMPLES", []):
        if line.startswith("$ perfkeep "):
            typed = line.removeprefix("$ perfkeep ").replace("$$", "1")  # the shell's own pid
            lexer = shlex.shlex(typed, posix=True, punctuation_chars="|>;&")
            lexer.whitespace_split = True
            yield list(itertools.takewhile(lambda word: not set(word) <= set("|>;&"), lexer))


def named(page: Path) -> str:
    return page.name


def test_every_verb_has_a_page_and_every_page_a_verb() -> None:
    assert {page.name for page in MAN.glob("perfkeep-*.1")} == {
        page_of(verb).name for verb in cli.VERBS
    }
    assert FRONT.exists()


@requires(groff)
@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_page_builds_without_a_warning(page: Path, tmp_path: Path) -> None:
    # Where they are installed, one page names another as man1/PAGE.
    for section in "125":
        (tmp_path / f"man{section}").symlink_to(MAN)
    command = ["groff", "-man", "-Tutf8", "-ww", "-z", f"man{page.suffix[1:]}/{page.name}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_page_has_the_sections_that_people_look_for_under_its_own_name(page: Path) -> None:
    found = sections(page)
    assert {"NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"} <= found.keys()
    names, dash, _ = found["NAME"][0].partition(" - ")
    assert dash and page.stem in names.split(", ")


@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_page_of_a_verb_has_its_options_and_no_others(verb: str) -> None:
    check_options(page_of(verb), parser_of(verb))


def test_the_front_page_has_the_options_that_need_no_verb() -> None:
    check_options(FRONT, cli.parser("ls"))


def test_the_front_page_and_the_verbs_pages_say_what_help_says() -> None:
    words = {verb: said for verb, (_, said) in cli.VERBS.items()}
    assert dict(tagged(sections(FRONT)["VERBS"])) == words
    own = {verb: words[verb] for verb, (module, _) in cli.VERBS.items() if verb == module}
    assert {verb: sections(page_of(verb))["NAME"][0].partition(" - ")[2] for verb in own} == own


def test_the_front_page_names_the_exit_codes_of_main() -> None:
    tree = ast.parse(inspect.getsource(cli.main))
    returned = {
        node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Constant)
    }
    codes = {*returned, cli.FAILED, cli.USAGE, cli.INCOMPLETE}
    assert {tag for tag, _ in tagged(sections(FRONT)["EXIT STATUS"])} == {str(c) for c in codes}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_error_on_a_page_has_a_name_that_exists(page: Path) -> None:
    text = "\n".join(plain(line) for line in source(page) if not re.match(r"\.[TSE][A-Z]\b", line))
    written = set(re.findall(r"\bE[A-Z0-9]{2,}\b", text)) - NO_ERRORS
    assert not [name for name in written if not hasattr(errno, name)]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_page_of_ours_that_a_page_refers_to_exists(page: Path) -> None:
    text = "\n".join(plain(line) for line in source(page))
    for name, section in re.findall(r"\b(perfkeep[\w-]*)\((\d)\)", text):
        assert (MAN / f"{name}.{section}").exists(), f"{page.name} refers to {name}({section})"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_in_the_examples_is_one_that_the_cli_takes(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in commands(page):
        try:
            cli.parser(words[0]).parse_args(words)
        except SystemExit:
            said = capsys.readouterr().err.strip()
            pytest.fail(f"{page.name}: perfkeep {shlex.join(words)}: {said}", pytrace=False)


def test_every_page_is_installed_where_man_looks_for_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    installed = {
        Path(folder) / path.name
        for folder, globs in project["tool"]["setuptools"]["data-files"].items()
        if folder.startswith("share/man/")
        for pattern in globs
        for path in ROOT.glob(pattern)
    }
    assert installed == {Path(f"share/man/man{page.suffix[1:]}") / page.name for page in PAGES}
