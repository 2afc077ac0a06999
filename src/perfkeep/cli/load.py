"""`perfkeep load`: start the recordings that files define and that are not there yet."""

from __future__ import annotations

import argparse
import errno
from typing import TYPE_CHECKING

from perfkeep.cli.check import add_paths, say_nothing_defined
from perfkeep.cli.common import printable, raise_fd_limit, say, say_error, say_hint, say_note
from perfkeep.errors import BrokerError

if TYPE_CHECKING:
    from perfkeep.client.definitions import Definition


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_paths(parser)


def run(options: argparse.Namespace) -> int:
    """What cannot be started stops none of the others."""
    from perfkeep.client import definitions
    from perfkeep.client.recording import infos

    failed = False
    found: list[Definition] = []
    for path in definitions.find(options.paths):
        try:
            found += definitions.read(path, obeyed=True)
        except definitions.DefinitionError as error:
            failed = True
            for problem in error.problems:
                say(printable(str(problem)))
                if problem.hint:
                    say_hint(printable(problem.hint))
    if not found and not failed:
        say_nothing_defined(options)
    if found:
        raise_fd_limit()
        there = {info.name for info in infos()}
        for definition in found:
            if definition.name in there:
                print(_THERE.format(definition.name))
            else:
                failed |= not _start(definition)
                there.add(definition.name)
    return 1 if failed else 0


_THERE = "{} is there already, and is left as it is"


def _start(definition: Definition) -> bool:
    """Whether all is well with it."""
    name = definition.name
    try:
        started = definition.start()
    except OSError as error:
        # Somebody else's, whom we may not see; or one of that name was started this very moment.
        if isinstance(error, BrokerError) and error.errno == errno.EEXIST:
            print(_THERE.format(name))
            return True
        say_error(error, f"{definition.path}:{definition.line}: {name}")
        return False
    for note in started.notes:
        say_note(note)
    if started.recording is not None:
        print(f"{name} has been started")
    return True
