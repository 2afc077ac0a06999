"""`perfkeep convert`: a perf.data file of stock perf, with persistent events as what they are."""

from __future__ import annotations

import argparse
import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO

from perfkeep.cli.common import printable

if TYPE_CHECKING:
    from perfkeep.formats.perf_data import EventDesc

_STDIN = _STDOUT = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE|-",
        help="what perf record -e persistent/NAME/ wrote; - is standard input",
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", required=True, help="may be FILE itself; - is stdout"
    )
    parser.add_argument(
        "-e",
        "--event",
        dest="events",
        action="append",
        metavar="EVENT",
        help="what a persistent event of FILE was, when its recording has ended: once for each, "
        "in the order of the file",
    )


def run(options: argparse.Namespace) -> int:
    from perfkeep.client.aside import AsideFile
    from perfkeep.errors import UsageError
    from perfkeep.formats.perf_data.completed import StockFile
    from perfkeep.formats.perf_data.reader import named

    with _open(options.file) as source, named(_called(options.file)):
        file = StockFile(source)
        if not file.persistent:
            raise UsageError(
                f"{_called(options.file)} has no persistent event",
                hint="perf script prints all of it as it is",
            )
        if options.events is not None:
            known = _typed(options.events, file.persistent)
        else:
            known = _remembered(file.persistent, os.fstat(source.fileno()).st_mtime_ns)
        progress = _progress(time.monotonic())
        if options.output == _STDOUT:
            file.write_completed(sys.stdout.buffer, known, progress)
            return 0
        with AsideFile(options.output) as out:
            file.write_completed(out, known, progress)
    for id, event in known.items():
        print(f"event {id} is {event.name}")
    print(f"written to {printable(options.output)}")
    return 0


def _called(path: str) -> str:
    return "standard input" if path == _STDIN else printable(path)


def _open(path: str) -> BinaryIO:
    """Raises: UsageError: what cannot be a perf.data; OSError: what cannot be opened."""
    from perfkeep.errors import UsageError

    if path == _STDIN:
        return _spooled()
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise UsageError(
            f"{printable(path)} is a directory, as perf record --threads writes",
            hint="record without --threads",
        )
    if not stat.S_ISREG(mode):
        raise UsageError(f"{printable(path)} is no file", hint="perf record -o FILE writes one")
    return open(path, "rb")


def _spooled() -> BinaryIO:
    """Standard input as a file, which what comes from a pipe is not."""
    from perfkeep.client.sources import stdin

    file = os.fdopen(os.memfd_create("perfkeep-convert", os.MFD_CLOEXEC), "w+b")
    file.write(stdin())
    file.seek(0)
    return file


def _typed(specs: Sequence[str], ids: Sequence[int]) -> Mapping[int, EventDesc]:
    """The events that -e names, for the ids of the file.

    Raises:
        UsageError: not one for each.
    """
    from perfkeep import events
    from perfkeep.errors import UsageError
    from perfkeep.formats.perf_data import EventDesc

    parsed = [events.parse(spec) for spec in specs]
    for spec, found in zip(specs, parsed, strict=True):
        if len(found) != 1:
            raise UsageError(f"{spec!r} names {len(found)} events, and one -e names one")
    if len(specs) != len(ids):
        raise UsageError(
            f"{len(specs)} events were named, and the file has {len(ids)}", hint=_how(ids)
        )
    return {
        id: EventDesc(event.name, event.attr, {}, event.tracepoint)
        for id, (event,) in zip(ids, parsed, strict=True)
    }


def _how(ids: Sequence[int]) -> str:
    numbers = ", ".join(map(str, ids))
    return (
        "say what the persistent events of the file were: -e EVENT once for each, in the file's "
        f"order (ids {numbers})"
    )


def _remembered(ids: Sequence[int], written_ns: int) -> Mapping[int, EventDesc]:
    """The events that the broker has under the ids of the file.

    Args:
        written_ns: when the file was. Ids begin anew with each instance; what was recorded later
            has nothing to do with the file.

    Raises:
        PerfkeepError: ENOENT one of them is gone.
        BrokerError: EACCES.
    """
    return {id: _event(id, ids, written_ns) for id in ids}


def _event(id: int, ids: Sequence[int], written_ns: int) -> EventDesc:
    from perfkeep.abi.perf_event import Attr
    from perfkeep.client.connection import call
    from perfkeep.client.recording import Recording
    from perfkeep.errors import BrokerError, PerfkeepError
    from perfkeep.formats.perf_data import EventDesc
    from perfkeep.wire.messages import EventId, EventShown

    gone = PerfkeepError(errno.ENOENT, f"the recording of event {id} has ended", hint=_how(ids))
    try:
        shown, _ = call("ShowEvent", EventId(id))
        assert isinstance(shown, EventShown)
        created_ns = Recording(shown.recording).info.created_ns
    except BrokerError as error:
        if error.errno != errno.ENOENT:
            raise
        raise gone from error
    if created_ns > written_ns:
        raise gone
    kind, point = shown.kind, shown.kind.tracepoint
    tracepoint = (point.system, point.name, point.id, point.format) if point else None
    return EventDesc(kind.name, Attr.unpack(kind.attr), {}, tracepoint)


def _progress(begin: float) -> Callable[[int, int], None]:
    """Tells a person on a terminal how far it is, once it takes over a second."""

    def show(done: int, total: int) -> None:
        if time.monotonic() - begin > 1 and sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r{done >> 20} of {total >> 20} MiB", end=end, file=sys.stderr, flush=True)

    return show
