"""Recordings that are defined in files: what recordings.d/*.toml say, and starting them.

    [recording.NAME]
    events = ["sched:sched_switch", {event = "syscalls:sys_enter_*", filter = "id != 1"}]
    cpus = "0-3,5"
    cgroup = "/system.slice"
    ring = "8M"
    call_graph = true
    owner = "alice"
    group = "tracing"
    mode = "0640"
    ttl = "1h"
    spill = "/var/lib/perfkeep/spill-NAME"
    spill_every = "5s"
    sideband = true
    enable = true
    optional = false

Only `events` must be there. Each key is what `recording.start` calls so; `call_graph` is its
`call_chains`. With `optional`, events that this machine does not have are left out.

A file with a mistake in it is refused as a whole, and all its mistakes are told at once. That this
machine lacks an event is no mistake of the file: `Definition.missing` has it.
"""

from __future__ import annotations

import errno
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from perfkeep.broker.registry import check_name
from perfkeep.client import opening, recording, toml_lines
from perfkeep.client.definition_keys import KEYS, Wrong, string
from perfkeep.errors import KernelRefused, Note, PerfkeepError, UsageError
from perfkeep.events import suggest
from perfkeep.kernel import privileges

if TYPE_CHECKING:
    from perfkeep.client.recording import Recording, Spec

_EXAMPLE = '"sched:sched_switch"'

# What says of an event that this machine does not have it: ENOENT no such name, or the CPUs lack
# it; ENODEV no PMU, or no such kind of event; EOPNOTSUPP a PMU that cannot do this.
_LACKS = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP)

# What says that this user may not look.
_UNSEEN = (errno.EACCES, errno.EPERM)


class Problem(NamedTuple):
    """A problem and its line; line 0: the file as such. `hint` is the cure, if one is known."""

    path: str
    line: int
    text: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}" if self.line else f"{self.path}: {self.text}"


class DefinitionError(UsageError):
    """A file that is not obeyed.

    Attributes:
        problems: all that is wrong with it, by their lines.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems, key=lambda one: one.line)
        hints = dict.fromkeys(one.hint for one in self.problems if one.hint)
        super().__init__("; ".join(map(str, self.problems)), hint="; ".join(hints))


@dataclass(frozen=True, slots=True)
class Missing:
    """An event that is not there.

    Attributes:
        spec: the event, as it is defined.
        certain: False: this user may not look for it.
    """

    problem: Problem
    spec: str
    certain: bool


class Started(NamedTuple):
    """What came of a definition: no recording when this machine has none of its events."""

    recording: Recording | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Definition:
    """One recording, as a file defines it. None is what the file does not say.

    Attributes:
        path, line: where its table begins.
        missing: events that this machine does not have, as far as can be seen without opening
            them.
    """

    name: str
    path: str = ""
    line: int = 0
    events: tuple[Spec, ...] = ()
    cpus: tuple[int, ...] | None = None
    cgroup: str | None = None
    ring: str | None = None
    call_graph: bool = False
    owner: str | int | None = None
    group: str | int | None = None
    mode: int | None = None
    ttl: str | None = None
    spill: str | None = None
    spill_every: str | None = None
    sideband: bool = True
    enable: bool = True
    optional: bool = False
    missing: tuple[Missing, ...] = ()

    def start(self) -> Started:
        """Make the recording.

        Raises:
            PerfkeepError: what `recording.start` raises; nothing was started then.
        """
        chosen, notes = self.present() if self.optional else (self.events, ())
        if not chosen:
            return Started(None, (*notes, f"{self.name} has no event left and is not started"))
        given = {key: getattr(self, key) for key in _PASSED_ON}
        made = recording.start(
            self.name,
            chosen,
            call_chains=self.call_graph,
            enable=self.enable,
            sideband=self.sideband,
            **{key: value for key, value in given.items() if value is not None},
        )
        return Started(made, (*notes, *made.notes))

    def present(self) -> tuple[tuple[Spec, ...], tuple[str, ...]]:
        """The events that this machine has, and a sentence for each of the others.

        Whether a CPU has an event is known when it has been opened; so each of them is, alone,
        and closed again.

        Raises:
            PerfkeepError: an event is refused for another reason than that it is not there.
        """
        to = opening.scope(self.cpus, cgroup=self.cgroup)
        found: list[Spec] = []
        notes: list[str] = []
        for spec in self.events:
            try:
                with closing(opening.open_events(opening.wanted([spec]), to, self.call_graph)):
                    found.append(spec)
            except PerfkeepError as error:
                if error.errno not in _LACKS:
                    raise
                notes.append(Note.of(error, f"{self.name} goes without {_event_of(spec)}"))
        return tuple(found), tuple(notes)


_PASSED_ON = ("cpus", "cgroup", "ring", "owner", "group", "mode", "ttl", "spill", "spill_every")


def _event_of(spec: Spec) -> str:
    return spec if isinstance(spec, str) else spec[0]


# --- where they are -------------------------------------------------------------------------------


def directory() -> str:
    """Where recordings are defined; PERFKEEP_CONFIG names another directory for all of perfkeep's
    files."""
    return os.path.join(os.environ.get("PERFKEEP_CONFIG") or "/etc/perfkeep", "recordings.d")


def find(paths: Sequence[str] = ()) -> list[str]:
    """The files that `paths` mean: a directory means its *.toml, sorted by name; hidden files
    count no more than what editors leave behind. No paths: those of `directory()`, if it is there.

    Raises:
        OSError: a directory that may not be read.
    """
    found: list[str] = []
    for path in paths or [directory()]:
        if os.path.isdir(path):
            with os.scandir(path) as entries:
                found += sorted(entry.path for entry in entries if _counts(entry))
        elif paths:
            found.append(path)
    return found


def _counts(entry: os.DirEntry[str]) -> bool:
    # A link to /dev/null, by which systemd's files are masked, is no file either.
    return entry.name.endswith(".toml") and not entry.name.startswith(".") and entry.is_file()


# --- reading --------------------------------------------------------------------------------------


def read(path: str, obeyed: bool = False) -> list[Definition]:
    """All recordings that a file defines, in its order.

    Args:
        obeyed: it will be acted upon, so nobody but root and this user may have written it.

    Raises:
        DefinitionError: with every problem; of bad syntax the first.
    """
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            data = file.read()
    except OSError as error:
        raise DefinitionError([Problem(path, 0, error.strerror or str(error))]) from error
    if obeyed and (found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022):
        text = "others than root and you can change it, so it is not obeyed"
        hint = privileges.script_as_root(["chown", "root", path], ["chmod", "644", path])
        raise DefinitionError([Problem(path, 0, text, hint)])
    return parse(data, path)


def parse(data: bytes, path: str = "") -> list[Definition]:
    """The same, of the bytes of a file. Looks events up, and opens none.

    Raises:
        DefinitionError.
    """
    try:
        text = data.decode()
        table = tomllib.loads(text)
        lines = toml_lines.lines_of(text.replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DefinitionError([Problem(path, line, "this is not UTF-8")]) from error
    except (ValueError, RecursionError) as error:
        raise DefinitionError([_syntax(path, text, error)]) from error
    reader = _Reader(path, lines)
    definitions = reader.document(table)
    if reader.problems:
        raise DefinitionError([*reader.problems, *absent(definitions)])
    return definitions


def absent(definitions: Iterable[Definition]) -> list[Problem]:
    """The events that this machine lacks and that must be there."""
    return [
        one.problem
        for definition in definitions
        if not definition.optional
        for one in definition.missing
        if one.certain
    ]


def _syntax(path: str, text: str, error: Exception) -> Problem:
    said = str(error)
    place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", said)
    if isinstance(error, RecursionError):
        return Problem(path, 0, "this is nested too deeply")
    if place is None:
        return Problem(path, 0, said)
    line = int(place[1]) if place[1] else len(text.splitlines() or [""])
    return Problem(path, line, said[: place.start()])


class _Reader:
    """Makes definitions of tables, and remembers what is wrong."""

    def __init__(self, path: str, lines: Mapping[toml_lines.Path, int]) -> None:
        self.path = path
        self.lines = dict(lines)
        self.problems: list[Problem] = []

    def _problem(self, at: toml_lines.Path, text: str, *, hint: str = "") -> Problem:
        return Problem(self.path, toml_lines.line_of(self.lines, at), text, hint)

    def _wrong(self, at: toml_lines.Path, text: str, *, hint: str = "") -> None:
        self.problems.append(self._problem(at, text, hint=hint))

    def _unknown(self, at: toml_lines.Path, known: Iterable[str]) -> None:
        close = suggest(str(at[-1]), known)
        hint = f"did you mean {', '.join(close)}?" if close else ""
        among = "" if close else f"; there are {', '.join(known)}"
        self._wrong(at, f"unknown key {at[-1]!r}{among}", hint=hint)

    def document(self, table: Mapping[str, Any]) -> list[Definition]:
        for key in table:
            if key != "recording":
                self._unknown((key,), ["recording"])
        recordings = table.get("recording", {})
        if not isinstance(recordings, dict):
            self._wrong(("recording",), "recording is no table", hint="write [recording.NAME]")
            return []
        return [self.recording(name, one) for name, one in recordings.items()]

    def recording(self, name: str, table: Any) -> Definition:
        at: toml_lines.Path = ("recording", name)
        found = Definition(name, self.path, toml_lines.line_of(self.lines, at))
        if not isinstance(table, dict):
            self._wrong(at, f"recording.{name} is no table", hint=f"write [recording.{name}]")
            return found
        try:
            check_name(name)
        except PerfkeepError as error:
            self._wrong(at, str(error), hint=error.hint)
        for key, value in table.items():
            if key == "events":
                found = self.events(found, (*at, key), value)
            elif key in KEYS:
                try:
                    found = replace(found, **{key: KEYS[key](value)})
                except (Wrong, PerfkeepError) as error:
                    self._wrong((*at, key), f"{key}: {error}", hint=error.hint)
            else:
                self._unknown((*at, key), ["events", *KEYS])
        if "events" not in table:
            self._wrong(at, f"{name} has no events", hint=f"add some: events = [{_EXAMPLE}]")
        if "spill_every" in table and "spill" not in table:
            self._wrong((*at, "spill_every"), "spill_every says how often; spill must say where")
        return found

    def events(self, of: Definition, at: toml_lines.Path, value: Any) -> Definition:
        if not isinstance(value, list) or not value:
            self._wrong(at, "events is no list of at least one", hint=f"write it like [{_EXAMPLE}]")
            return of
        specs, missing = [], []
        for number, one in enumerate(value):
            spec = self._spec((*at, number), one)
            if spec is None:
                continue
            specs.append(spec)
            absent = self._look_up((*at, number), spec)
            if absent is not None:
                missing.append(absent)
        return replace(of, events=tuple(specs), missing=tuple(missing))

    def _spec(self, at: toml_lines.Path, value: Any) -> Spec | None:
        table = {"event": value} if isinstance(value, str) else value
        if not isinstance(table, dict) or "event" not in table:
            self._wrong(
                at,
                "an event is neither a string nor a table",
                hint=f'write it like {{event = {_EXAMPLE}, filter = "…"}}',
            )
            return None
        for key, one in table.items():
            if key not in ("event", "filter"):
                self._unknown((*at, key), ["event", "filter"])
            else:
                try:
                    string(one, "sched:sched_switch" if key == "event" else "prev_prio < 100")
                except Wrong as error:
                    self._wrong((*at, key), f"{key}: {error}", hint=error.hint)
                    return None
        return (table["event"], table["filter"]) if "filter" in table else table["event"]

    def _look_up(self, at: toml_lines.Path, spec: Spec) -> Missing | None:
        """What is wrong with the spec is a problem; what this machine lacks is told apart."""
        try:
            opening.wanted([spec])
        except PerfkeepError as error:
            unseen = isinstance(error, KernelRefused) or error.errno in _UNSEEN
            if unseen or error.errno in _LACKS:
                problem = self._problem(at, str(error), hint=error.hint)
                return Missing(problem, _event_of(spec), not unseen)
            self._wrong(at, str(error), hint=error.hint)
        return None
