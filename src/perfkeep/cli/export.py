"""`perfkeep export`: what a snapshot or a recording holds, for another program."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

from perfkeep.cli.common import add_source, printable, say
from perfkeep.cli.progress import Progress, Watched
from perfkeep.cli.report import add_samples, say_remarks
from perfkeep.errors import UsageError

if TYPE_CHECKING:
    from perfkeep.analysis.data import Data
    from perfkeep.analysis.stacks import Stacks
    from perfkeep.formats.sampled import Sampled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    parser.add_argument("--to", required=True, choices=sorted(FORMS), help="what to make of it")
    parser.add_argument(
        "-o", "--output", metavar="OUT", required=True, help="the file to write; - is stdout"
    )
    parser.add_argument(
        "-e", "--event", metavar="EVENT", help="of this event, as it is called or its table is"
    )
    parser.add_argument(
        "--no-clobber", action="store_true", help="leave a file that exists as it is"
    )
    add_samples(parser)


class Asked(NamedTuple):
    """The selection of samples to export, and their weight: the period, or one each."""

    event: str | None
    count_samples: bool


def run(options: argparse.Namespace) -> int:
    from perfkeep.client.aside import AsideFile
    from perfkeep.client.look import look

    if options.output == "-" and sys.stdout.isatty() and options.to in _BINARY:
        raise UsageError(f"{options.to} is not for a terminal", hint="name a file with -o")
    if options.samples and options.to not in _WEIGHED:
        raise UsageError(
            f"--samples does not apply to {options.to}, which has every sample with its period",
            hint="leave --samples out",
        )
    with Progress() as progress, ExitStack() as stack:
        progress.stage(f"reading {printable(options.source)}")
        data = look(options.source, progress.rings)
        progress.erase()
        for text in data.complaints():
            say(text)
        out: BinaryIO = sys.stdout.buffer
        if options.output != "-":
            out = stack.enter_context(AsideFile(options.output, not options.no_clobber))
        progress.stage(f"making {options.to}")
        asked = Asked(options.event, options.samples)
        FORMS[options.to](data, asked, cast(BinaryIO, Watched(out, progress)))
    if options.output != "-":
        print(f"written to {printable(options.output)}")
    say_remarks(data)
    return 0


def _stacks(data: Data, asked: Asked) -> Stacks:
    """The event's stacks by thread."""
    from perfkeep.analysis.stacks import default_event, stacks

    return stacks(data, asked.event or default_event(data), count_samples=asked.count_samples)


def _folded(data: Data, asked: Asked, out: BinaryIO) -> None:
    from perfkeep.formats.folded import folded

    some = _stacks(data, asked).named()
    for line in folded(([name for name, _ in frames], weight) for frames, weight in some):
        out.write(line.encode(errors="replace"))


def _flamegraph(data: Data, asked: Asked, out: BinaryIO) -> None:
    from perfkeep.formats.flamegraph import flamegraph

    found = _stacks(data, asked)
    out.write(flamegraph(found.event, found.named(), unit=found.unit))


def _sampled(data: Data, asked: Asked) -> Sampled:
    from perfkeep.analysis.sampled import sampled
    from perfkeep.analysis.stacks import default_event

    return sampled(data, asked.event or default_event(data))


def _perfetto(data: Data, asked: Asked, out: BinaryIO) -> None:
    from perfkeep.analysis.trace import trace

    for packet in trace(data, asked.event):
        out.write(packet)


def _perf_data(data: Data, asked: Asked, out: BinaryIO) -> None:
    from perfkeep.formats.perf_data.plain import write_plain

    if asked.event is not None:
        raise UsageError(
            "-e does not apply to perf.data, which has every event", hint="leave -e out"
        )
    write_plain(out, data.file)


def _pprof(data: Data, asked: Asked, out: BinaryIO) -> None:
    from perfkeep.formats.pprof import pprof

    out.write(pprof(_sampled(data, asked), asked.count_samples))


def _firefox(data: Data, asked: Asked, out: BinaryIO) -> None:
    from perfkeep.analysis.sampled import facts
    from perfkeep.formats.firefox import firefox

    document = firefox(_sampled(data, asked), facts(data), asked.count_samples)
    out.write(json.dumps(document, separators=(",", ":")).encode())


def _speedscope(data: Data, asked: Asked, out: BinaryIO) -> None:
    from perfkeep.formats.speedscope import speedscope

    found = _stacks(data, asked)
    document = speedscope(found.event, found.named(), found.unit)
    out.write(json.dumps(document, separators=(",", ":")).encode())


def _table(data: Data, form: str, event: str | None) -> str:
    """The one table that a file of rows can hold.

    Raises:
        UsageError: there are several, and none was named.
    """
    if event is not None:
        return data.name_of(event)
    some = [name for name, table in data.tables.items() if len(table)]
    if len(some) > 1:
        raise UsageError(
            f"{form} holds one table, and there are {', '.join(some)}",
            hint=f"name one with -e, like -e {some[0]}",
        )
    return some[0] if some else next(iter(data.tables))


def _copy(form: str) -> Callable[[Data, Asked, BinaryIO], None]:
    def write(data: Data, asked: Asked, out: BinaryIO) -> None:
        from perfkeep.analysis.sql import write_rows

        write_rows(data.connection, f'FROM "{_table(data, form, asked.event)}"', form, out)

    return write


def _arrow(data: Data, asked: Asked, out: BinaryIO) -> None:
    from perfkeep.formats.arrow import write_stream

    write_stream(data.with_names(_table(data, "arrow", asked.event)), out)


#: What `--to` takes.
FORMS: dict[str, Callable[[Data, Asked, BinaryIO], None]] = {
    "arrow": _arrow,
    "csv": _copy("csv"),
    "firefox": _firefox,
    "flamegraph": _flamegraph,
    "folded": _folded,
    "parquet": _copy("parquet"),
    "perf.data": _perf_data,
    "perfetto": _perfetto,
    "pprof": _pprof,
    "speedscope": _speedscope,
}
#: The forms that give each stack or sample a weight.
_WEIGHED = ("firefox", "flamegraph", "folded", "pprof", "speedscope")
_BINARY = ("arrow", "parquet", "perf.data", "perfetto", "pprof")
