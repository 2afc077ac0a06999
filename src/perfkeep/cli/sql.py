"""`perfkeep sql`: ask a snapshot, or a live recording, by SQL."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from typing import Any

from perfkeep.cli.common import add_source, printable, say
from perfkeep.cli.table import render


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    parser.add_argument("query", metavar="QUERY", nargs="?", help="what DuckDB understands")
    parser.add_argument("--tables", action="store_true", help="show tables, views and columns")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="rows as comma-separated values")
    form.add_argument("--json", action="store_true", help="rows as a list of objects")
    form.add_argument("--parquet", metavar="OUT", help="rows into a Parquet file")


def run(options: argparse.Namespace) -> int:
    from perfkeep.errors import UsageError

    if options.query is None and not options.tables:
        raise UsageError("no query was given", hint="--tables shows what can be asked")
    from perfkeep.analysis.sql import SqlError, ask, refusal, schema, write_rows
    from perfkeep.client.aside import AsideFile
    from perfkeep.client.look import look

    data = look(options.source)
    for text in data.complaints():
        say(text)
    if options.tables:
        _show_tables(schema(data.connection))
        return 0
    try:
        if options.parquet:
            with AsideFile(options.parquet) as out:
                write_rows(data.connection, options.query, "parquet", out)
            print(f"written to {printable(options.parquet)}")
            return 0
        names, rows = ask(data.connection, options.query)
    except SqlError as error:
        raise refusal(error) from error
    _print(options, names, rows)
    return 0


def _print(options: argparse.Namespace, names: list[str], rows: list[tuple[Any, ...]]) -> None:
    if options.csv:
        out = csv.writer(sys.stdout, lineterminator="\n")
        out.writerow(names)
        out.writerows(rows)
    elif options.json:
        some = [dict(zip(names, row, strict=True)) for row in rows]
        print(json.dumps(some, indent=2, default=str, ensure_ascii=False))
    else:
        shown = [["" if one is None else str(one) for one in row] for row in rows]
        numbers = [
            at
            for at in range(len(names))
            if rows and all(isinstance(row[at], int | float | None) for row in rows)
        ]
        print(render(names, shown, right=numbers))


def _show_tables(found: list[tuple[str, str, str]]) -> None:
    print(render(["TABLE", "COLUMN", "TYPE"], [[*row] for row in found]))
