"""What several verbs share: options for events, words for recordings."""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

from perfkeep.errors import Note, PerfkeepError
from perfkeep.wire.messages import EventInfo, RecordingInfo, Target


class EventOption(argparse.Action):
    """-e EVENT, again and again; a --filter belongs to the -e before it, as in perf."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        value: str | Sequence[str] | None,
        option: str | None = None,
    ) -> None:
        events = list(namespace.events or [])
        if option == "--filter":
            if not events:
                parser.error("--filter belongs behind the -e whose samples it filters")
            events[-1] = (events[-1][0], value)
        else:
            events.append((value, None))
        namespace.events = events


def add_events(parser: argparse.ArgumentParser, filters: bool = True) -> None:
    parser.add_argument(
        "-e",
        "--event",
        dest="events",
        action=EventOption,
        metavar="EVENT",
        help="an event as perf record -e takes it; may be given again",
    )
    if filters:
        parser.add_argument(
            "--filter",
            dest="events",
            action=EventOption,
            metavar="EXPR",
            help="keep only samples of the tracepoints before it for which EXPR holds",
        )
        parser.add_argument("-g", "--call-graph", action="store_true", help="record call chains")


def add_source(parser: argparse.ArgumentParser, dest: str = "source", **options: Any) -> None:
    """Add the argument for the source a command reads, as client.sources takes it."""
    parser.add_argument(
        dest,
        metavar=options.pop("metavar", "FILE|NAME|-"),
        help=options.pop("help", "a perf.data file, a recording, or - for standard input"),
        **options,
    )


def add_access(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--owner", metavar="USER", help="whose it is; only root may give it away")
    parser.add_argument("--group", metavar="GROUP", help="whose members the mode is about")
    parser.add_argument(
        "--mode",
        metavar="MODE",
        help="who else may what, like 0640: r sees and takes snapshots, w controls",
    )


def recording_name(text: str) -> str:
    """Only the length: the broker knows what else a name may be.

    Raises:
        UsageError: no recording can be called that.
    """
    from perfkeep.errors import UsageError

    if not 0 < len(text) <= 64:
        raise UsageError(f"a recording's name has 1 to 64 characters, this one has {len(text)}")
    return text


def new_recording_name(text: str) -> str:
    """A name for a recording that is about to be made.

    Raises:
        UsageError: no recording can be called that.
    """
    from perfkeep.broker.registry import check_name
    from perfkeep.errors import BrokerError, UsageError

    try:
        check_name(text)
    except BrokerError as error:
        raise UsageError(str(error), hint=error.hint) from error
    return text


def mode(text: str) -> int:
    """ "0640" as chmod takes it.

    Raises:
        UsageError: no octal number.
    """
    from perfkeep.errors import UsageError

    try:
        return int(text, 8)
    except ValueError:
        raise UsageError(
            f"{text!r} is no mode", hint="write it in octal digits, like 0640"
        ) from None


def need_events(options: argparse.Namespace) -> list[tuple[str, str | None]]:
    """Raises: UsageError: no -e."""
    from perfkeep.errors import UsageError

    if not options.events:
        raise UsageError("no event was named", hint="name one with -e, like -e sched:sched_switch")
    return list(options.events)


def raise_fd_limit() -> None:
    """One fd per event and CPU is needed for a moment; take what we may have, as perf does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def process_id(text: str) -> int:
    """The type of an argument that is a process."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a process id, such as pgrep prints")
    return int(text)


def count(text: str) -> int:
    """The type of an argument that is a number of lines, from 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of lines")
    return int(text)


def say(text: str) -> None:
    """Something for the person, beside the output."""
    print(f"perfkeep: {text}", file=sys.stderr)


def say_hint(text: str) -> None:
    """The cure of what `say` reported."""
    print(f"hint: {text}", file=sys.stderr)


def say_note(note: str) -> None:
    """Report what was done otherwise than asked, and its hint."""
    say(printable(note))
    if isinstance(note, Note) and note.hint:
        say_hint(printable(note.hint))


def say_error(error: OSError, of: str = "") -> None:
    """Report an error and its hint.

    Args:
        of: what the error concerns, if its words do not say.
    """
    words, hint = str(error), getattr(error, "hint", "")
    if not isinstance(error, PerfkeepError) and error.strerror:
        words = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    say(printable(f"{of}: {words}" if of else words))
    if hint:
        say_hint(printable(hint))


def missed(info: RecordingInfo) -> bool:
    """True if something is or was missing from a recording; `perfkeep show` lists what."""
    return bool(info.problem or info.gaps or info.offline)


def printable(text: str) -> str:
    """The text, with "?" for bytes of a file's name that are not UTF-8."""
    return text.encode(errors="replace").decode()


def age(created_ns: int) -> str:
    """How long ago, in the largest unit: "3m"."""
    return span(time.time_ns() - created_ns)


def span(ns: int) -> str:
    """A time in its largest unit: "3m"."""
    seconds = max(0, ns) // 10**9
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def utc(created_ns: int) -> str:
    """RFC 3339 in UTC, with microseconds."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created_ns // 10**9))
    return f"{stamp}.{created_ns % 10**9 // 1000:06d}Z"


def user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def as_json(info: RecordingInfo) -> dict[str, object]:
    """A recording as `ls --json` prints it; docs/json.md."""
    return {
        "name": info.name,
        "id": info.id,
        "state": info.state,
        "created": utc(info.created_ns),
        "owner": {
            "uid": info.owner.uid,
            "user": user_name(info.owner.uid),
            "pid": info.owner.pid,
            "command": info.owner.command,
        },
        "mode": f"{info.mode:04o}",
        "group": group_name(info.gid),
        "ring": {
            "kind": info.ring.kind,
            "bytes_per_cpu": info.ring.bytes_per_cpu,
            "overwrites": info.ring.overwrites,
        },
        "target": target_json(info.target),
        "events": [
            {
                "id": e.id,
                "event": e.event,
                "cpus": e.cpus,
                "filter": e.filter,
                "call_chains": e.call_chains,
            }
            for e in info.events
        ],
        "expires": None if info.expires_ns is None else utc(info.expires_ns),
        "offline_cpus": info.offline,
        "gaps": [
            {
                "since": utc(gap.since_ns),
                "until": None if gap.until_ns is None else utc(gap.until_ns),
                "cpus": gap.cpus,
                "why": gap.why,
            }
            for gap in info.gaps
        ],
        "problem": info.problem,
        "sideband_cpus": info.sideband,
        "spill": info.spill
        and {
            "directory": info.spill.directory,
            "every_ms": info.spill.every_ns // 10**6,
            "last": utc(info.spill.last_ns) if info.spill.last_ns else None,
            "bytes": info.spill.bytes,
            "problem": info.spill.problem,
        },
    }


def target_json(target: Target) -> dict[str, object]:
    """The tasks that a recording follows; docs/json.md."""
    program = target.program
    return {
        "pids": target.pids,
        "cgroup": target.cgroup,
        "program": program
        and {
            "pid": program.pid,
            "command": program.command,
            "per_task": program.per_task,
        },
    }


def print_events(change: str, events: Sequence[EventInfo]) -> None:
    """Print which events a verb added or removed: up to three with their ids, and how many more."""
    text = ", ".join(f"{event.event} (id {event.id})" for event in events[:3])
    more = f" and {len(events) - 3} more" if len(events) > 3 else ""
    print(f"{change} {text}{more}")


def print_made(info: RecordingInfo, last: str = "") -> None:
    """What was just made, and what can be done with it."""
    events = ", ".join(event.event for event in info.events[:3])
    more = f" and {len(info.events) - 3} more" if len(info.events) > 3 else ""
    print(f"{info.name} (id {info.id}) records {events}{more}")
    print(f"look at it:  perfkeep snapshot {info.name}{last}")
    print(f"end it:      perfkeep claim {info.name}")


def print_json(document: object) -> None:
    import json

    print(json.dumps(document, indent=2))
