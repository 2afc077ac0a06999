"""`perfkeep check`: read the files that define recordings, and say what is wrong with them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from perfkeep.cli.common import printable

if TYPE_CHECKING:
    from perfkeep.client.definitions import Definition, Problem

#: As for what is typed: a file that is not understood.
_NOT_UNDERSTOOD = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_paths(parser)


def add_paths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        metavar="FILE|DIR",
        nargs="*",
        help="where recordings are defined; /etc/perfkeep/recordings.d unless given",
    )


def run(options: argparse.Namespace) -> int:
    from perfkeep.client import definitions

    found: list[Definition] = []
    problems: list[Problem] = []
    for path in definitions.find(options.paths):
        try:
            # What lies in the directory of the machine is acted upon at boot.
            found += definitions.read(path, obeyed=not options.paths)
        except definitions.DefinitionError as error:
            problems += error.problems
    problems += definitions.absent(found)
    problems += _twice(found)
    for definition in found:
        for one in definition.missing:
            if definition.optional or not one.certain:
                _print(one.problem._replace(text=f"warning: {one.problem.text}"))
    for problem in problems:
        _print(problem)
    if problems:
        return _NOT_UNDERSTOOD
    for definition in found:
        print(f"{definition.name}: ok")
    if not found:
        say_nothing_defined(options)
    return 0


def _print(problem: Problem) -> None:
    print(printable(str(problem)))
    if problem.hint:
        print(printable(f"hint: {problem.hint}"))


def say_nothing_defined(options: argparse.Namespace) -> None:
    from perfkeep.client.definitions import directory

    where = ", ".join(options.paths or [directory()])
    print(f"no recordings are defined in {printable(where)}")


def _twice(found: Iterable[Definition]) -> Iterator[Problem]:
    from perfkeep.client.definitions import Problem

    first: dict[str, Definition] = {}
    for one in found:
        other = first.setdefault(one.name, one)
        if other is not one:
            where = f"{other.path}:{other.line}"
            yield Problem(one.path, one.line, f"{one.name} is defined at {where} already")
