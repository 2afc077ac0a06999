"""A file by its name, or what a recording holds now, as tables."""

from __future__ import annotations

from perfkeep.analysis.data import Data
from perfkeep.client.data_set import data_set, read
from perfkeep.client.snapshot import Progress
from perfkeep.client.sources import STDIN, is_file, parsed, read_as_file


def look(source: str, progress: Progress | None = None) -> Data:
    """The tables of what `client.sources.parsed` reads, which see."""
    if source != STDIN and is_file(source):
        with read_as_file(source):
            return read(source)
    return data_set(parsed(source, progress))
