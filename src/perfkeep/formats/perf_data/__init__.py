"""perf.data: the file that `perf record` writes and stock perf reads."""

from perfkeep.formats.perf_data.coverage import Coverage, CpuCoverage, RingCopy, Window
from perfkeep.formats.perf_data.event import EventDesc
from perfkeep.formats.perf_data.reader import PerfData, parse, read
from perfkeep.formats.perf_data.writer import write_snapshot

__all__ = [
    "Coverage",
    "CpuCoverage",
    "EventDesc",
    "PerfData",
    "RingCopy",
    "Window",
    "parse",
    "read",
    "write_snapshot",
]
