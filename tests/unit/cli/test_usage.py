"""A usage error exits with 2, and prints the usage of its verb, the error, and a hint if there is one."""

from __future__ import annotations

import pytest

from support.commands import Cli

#: Command lines that cannot be understood: by argparse, by a verb, by what a verb calls.
WRONG = [
    ["start", "x"],
    ["start", "a b", "-e", "cpu-clock"],
    ["start", "1", "-e", "cpu-clock"],
    ["start", "x", "-e", "no-such-event"],
    ["start", "x", "-e", "cpu-clock", "--ring", "3"],
    ["start", "x", "-e", "cpu-clock", "-p", "word"],
    ["start", "x", "-e", "cpu-clock", "--mode", "9"],
    ["start", "x", "--filter", "a == 1"],
    ["adopt", "1", "--name", "a b"],
    ["show"],
    ["show", ""],
    ["ls", "x"],
    ["snapshot", "x", "--last", "long"],
    ["snapshot", "x", "--last", "1s", "--since", "2s"],
    ["report", "x", "--by", "nothing"],
    ["sql", "x"],
    ["script", "x", "--pid", "word"],
    ["tail", "x", "--every", "long"],
    ["export", "x", "--to", "nothing", "-o", "y"],
    ["diff", "x"],
    ["diff", "x", "y", "-n", "-5"],
    ["adopt", "word"],
    ["size", "-e", "cpu-clock", "-p", "0"],
    ["chmod", "9", "x"],
    ["claim"],
    ["remove", "x"],
    ["size"],
    ["exec"],
    ["daemon"],
    ["gc", "x"],
    ["recover"],
]


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_it_exits_with_2_after_the_usage_of_its_verb(cli: Cli, words: list[str]) -> None:
    done = cli(*words)
    assert (done.code, done.out) == (2, "")
    lines = done.err.splitlines()
    assert lines[0].startswith(f"usage: perfkeep {words[0]} ")
    (error,) = [line for line in lines if line.startswith("perfkeep: ")]
    assert lines[lines.index(error) + 1 :] == [line for line in lines if line.startswith("hint: ")]


@pytest.mark.parametrize("words", [[], ["no-such-verb"], ["--nothing"]], ids=" ".join)
def test_without_a_verb_it_is_the_usage_of_the_command(cli: Cli, words: list[str]) -> None:
    done = cli(*words)
    assert done.code == 2
    assert done.err.startswith("usage: perfkeep [-h]")


def test_system_may_stand_before_the_verb_as_well(cli: Cli) -> None:
    before, after = cli("--system", "ls", "--json"), cli("ls", "--system", "--json")
    assert (before.code, before.out) == (after.code, after.out)


def test_options_may_stand_between_the_operands(cli: Cli) -> None:
    done = cli("sql", "/nonexistent/file", "--csv", "SELECT 1")
    assert (done.code, done.err) == (1, "perfkeep: /nonexistent/file: No such file or directory\n")
    assert cli("sql", "x", "SELECT 1", "--csv", "SELECT 2").code == 2
