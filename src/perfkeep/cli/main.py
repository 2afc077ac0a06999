"""`perfkeep VERB …`: finds the verb, runs it, and says what went wrong.

Exit codes: 0 done, 1 failed, 2 not understood, 3 a snapshot that is not complete.
"""

from __future__ import annotations

import os
import sys

# Folders of PYTHONPATH come last: a program that `exec` runs may need them, and what lies there may
# have the name of a module of Python's own.
_FOLDERS = {os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep)}
if not sys.flags.ignore_environment and "PYTHONPATH" in os.environ:
    sys.path.sort(key=lambda path: os.path.abspath(path) in _FOLDERS)

import argparse  # noqa: E402
import importlib  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from typing import Any  # noqa: E402

# msgspec loads typing_extensions where it is installed, and with it inspect and ast: a sixth of
# the time that `perfkeep ls` takes, for what this Python's own typing has. Only here, where the
# process is our own, and only while msgspec is loaded.
_HIDDEN = "typing_extensions" not in sys.modules
if _HIDDEN:
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
import msgspec  # noqa: E402, F401

if _HIDDEN:
    del sys.modules["typing_extensions"]

import perfkeep  # noqa: E402
from perfkeep.errors import UsageError  # noqa: E402
from perfkeep.wire.instance import SYSTEM  # noqa: E402

FAILED, USAGE, INCOMPLETE = 1, 2, 3

#: verb → (module, what it does). A verb's module is loaded when it is asked for.
VERBS = {
    "start": ("start", "record events until they are claimed"),
    "size": ("size", "measure how much events record now, and say which ring holds it"),
    "ls": ("ls", "list the recordings"),
    "show": ("show", "show one recording"),
    "stat": ("stat", "read the counts of a recording"),
    "snapshot": ("snapshot", "copy what a recording holds into a perf.data file"),
    "recover": ("recover", "make a snapshot of what --spill kept, after everything died"),
    "convert": ("convert", "complete a perf.data of stock perf, so that perf script prints fields"),
    "script": ("script", "print samples one by one, like perf script"),
    "tail": ("tail", "print samples as they come"),
    "sql": ("sql", "ask a snapshot or a recording by SQL"),
    "export": ("export", "make a file for another program of what was recorded"),
    "diff": ("diff", "compare two snapshots, or two parts of one"),
    "report": ("report", "show what was running, from a perf.data file or a recording"),
    "enable": ("enable", "let a recording go on"),
    "disable": ("disable", "let a recording pause; what it holds stays"),
    "add": ("add", "let events join a recording"),
    "remove": ("remove", "take events out of a recording"),
    "adopt": ("adopt", "take over the perf events of a running process"),
    "claim": ("claim", "end recordings"),
    "stop": ("claim", "the same as claim"),
    "rm": ("claim", "the same as claim"),
    "chmod": ("chmod", "say who may see a recording, and who may control it"),
    "chown": ("chown", "give a recording to another user or group"),
    "gc": ("gc", "end recordings that are over by policy"),
    "upgrade": ("upgrade", "have the running daemons go on with this version's code"),
    "daemon": ("daemon", "run the daemons as a service, in the foreground"),
    "check": ("check", "read the files that define recordings, and say what is wrong"),
    "load": ("load", "start the recordings that files define"),
    "exec": ("exec", "run a program that may use persistent events itself"),
    "mount": ("mount", "show the persistent events in /sys, system-wide"),
    "umount": ("umount", "take the persistent events out of /sys again"),
    "status": ("status", "show the broker and the keeper"),
    "doctor": ("doctor", "find out what this machine lets you record"),
    "demo": ("demo", "try it all on this machine's real events"),
}


#: Verbs that talk to an instance, and so take --system.
TALK = frozenset(
    [
        "start",
        "ls",
        "show",
        "stat",
        "snapshot",
        "convert",
        "script",
        "tail",
        "sql",
        "export",
        "diff",
        "report",
        "enable",
        "disable",
        "add",
        "remove",
        "adopt",
        "claim",
        "stop",
        "rm",
        "chmod",
        "chown",
        "gc",
        "upgrade",
        "load",
        "exec",
        "mount",
        "status",
    ]
)


def _formatter(prog: str) -> argparse.HelpFormatter:
    """As wide as the terminal; argparse's own way to find that out imports shutil each time."""
    try:
        width = os.get_terminal_size().columns
    except OSError:
        width = 80
    return argparse.HelpFormatter(prog, width=max(40, width - 2))


def _joined(words: Sequence[str]) -> list[str]:
    """--since -10s → --since=-10s: argparse takes all that begins with "-" for an option.

    The command of `exec` stays as it is, and so does everything after "--".
    """
    joined: list[str] = []
    for index, word in enumerate(words):
        if word == "--" or joined[:1] == ["exec"]:
            return joined + list(words[index:])
        negative = word[:1] == "-" and word[1:2].isdecimal()
        if negative and joined and joined[-1][:2] == "--":
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_formatter, **options)
        #: The verbs' own parsers, by name.
        self.verbs: dict[str, argparse.ArgumentParser] = {}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # The command's parser, which calls the verb's with what remains.
        words = _joined(args) if args is not None and self.verbs else args
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"perfkeep: {message}\n")


def parser(only: str | None = None) -> _Parser:
    """The whole command line's parser.

    Args:
        only: load this verb's module and no other; the rest is there by name.
    """
    top = _Parser(
        prog="perfkeep",
        description="Persistent perf events: recordings that outlive whoever started them.",
        epilog="perfkeep VERB --help tells more. --system is root's instance, and "
        "PERFKEEP_SOCKET names another.",
    )
    top.add_argument("--version", action="version", version=f"perfkeep {perfkeep.__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, (module, words) in VERBS.items():
        one = verbs.add_parser(verb, help=words, description=words[0].upper() + words[1:] + ".")
        top.verbs[verb] = one
        if only is None or verb == only:
            importlib.import_module(f"perfkeep.cli.{module}").add_arguments(one)
            if verb in TALK:
                one.add_argument("--system", action="store_true", help="of root's instance")
    return top


def _verb(arguments: Sequence[str]) -> str | None:
    """The verb of a command line, if it names one."""
    word = next((word for word in arguments if not word.startswith("-")), None)
    return word if word in VERBS else None


def _system_last(arguments: Sequence[str]) -> Sequence[str]:
    """--system VERB → VERB --system: it is an option of verbs."""
    if arguments[:1] == ["--system"] and len(arguments) > 1 and arguments[1] in TALK:
        return [arguments[1], "--system", *arguments[2:]]
    return arguments


def _fill(verb: argparse.ArgumentParser, options: argparse.Namespace, words: list[str]) -> None:
    """Give words to the optional operands that argparse left out because an option stood between:
    sql FILE --csv QUERY."""
    for action in verb._actions:
        free = not action.option_strings and getattr(options, action.dest) == action.default
        if free and action.nargs == "?" and words and not words[0].startswith("-"):
            setattr(options, action.dest, words.pop(0))


def _usage(arguments: Sequence[str]) -> str:
    """Usage of the verb of a command line, or of the command."""
    verb = _verb(arguments)
    top = parser(verb)
    return (top if verb is None else top.verbs[verb]).format_usage()


def _run(arguments: Sequence[str]) -> int:
    top = parser(_verb(arguments))
    options, unknown = top.parse_known_args(arguments)
    _fill(top.verbs[options.verb], options, unknown)
    if unknown:  # argparse itself would print the usage of the command
        top.verbs[options.verb].error(f"unrecognized arguments: {' '.join(unknown)}")
    module = importlib.import_module(f"perfkeep.cli.{VERBS[options.verb][0]}")
    if getattr(options, "system", False):
        # For the whole process, as everything that it does concerns one instance.
        os.environ["PERFKEEP_SOCKET"] = SYSTEM
    if "DEBUGINFOD_URLS" in os.environ:
        from perfkeep.cli.progress import watch_downloads

        watch_downloads()
    return int(module.run(options))


def _open_streams() -> None:
    """A closed standard stream becomes /dev/null: the next file opened would take its number,
    and be written to as if it were the terminal."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and give its exit code; see the top of this file."""
    _open_streams()
    # Names of files and tasks may be anything, and a locale may have ASCII only: "?" for the rest.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    words = sys.argv[1:] if arguments is None else arguments
    try:
        code = _run(_system_last(words))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read us has seen enough; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except UnicodeEncodeError as error:
        from perfkeep.cli.common import printable

        sys.stderr.write(_usage(words))
        print(f"perfkeep: {printable(error.object)!r} is not UTF-8", file=sys.stderr)
        return USAGE
    except ModuleNotFoundError as error:
        from perfkeep import extras

        extra = extras.extra_of(error.name or "")
        if extra is None:
            raise
        return _failed(extras.missing(error.name or "", extra))
    except OSError as error:
        if isinstance(error, UsageError):
            sys.stderr.write(_usage(words))
        return _failed(error)


def _failed(error: OSError) -> int:
    """Print an error and its hint; returns the exit code."""
    from perfkeep.cli.common import say_error

    say_error(error)
    return USAGE if isinstance(error, UsageError) else FAILED
