"""What the records of a file that are no samples say of its samples: names of threads, mappings, the clock."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from perfkeep.abi.perf_data import Feature
from perfkeep.abi.perf_event import Attr, Sample
from perfkeep.abi.records import Record
from perfkeep.formats.perf_data.coverage import Clock
from perfkeep.formats.perf_data.reader import PerfData
from perfkeep.records.cells import Column, Ints
from perfkeep.records.sample import constant_period
from perfkeep.records.tasks import Tasks
from perfkeep.records.unseen import is_unseen

if TYPE_CHECKING:
    from perfkeep.analysis.symbolize import Images, Symbolizer

_TYPE_SIZE = struct.Struct("=IHH")
_CLOCK = struct.Struct("=IIQQ")
_OF_PROCESSES = (Record.COMM, Record.FORK, Record.MMAP, Record.MMAP2)


class Context:
    """What the other records say of the samples. It does not know the Data that it is of: memory as
    large as the file would lie there until the garbage collector comes.
    """

    def __init__(
        self, file: PerfData, others: Ints, kallsyms: Callable[[], bytes], images: Images | None
    ) -> None:
        self._file, self._others, self._kallsyms = file, others, kallsyms
        self._images = images
        self._last_host: Column | None = None

    def others(self) -> Iterator[tuple[int, memoryview]]:
        """(type, bytes) of the records that are no samples."""
        return (self._record(offset) for offset in self._others.tolist())

    def _record(self, offset: int) -> tuple[int, memoryview]:
        kind, _, size = _TYPE_SIZE.unpack_from(self._file.data, offset)
        return kind, self._file.data[offset : offset + size]

    @cached_property
    def untimed(self) -> bool:
        """True if no event records time, as with `perf record --per-thread`: records then lie in the
        order in which they were written, and their offsets stand for times.
        """
        return not any(one.attr.sample_type & Sample.TIME for one in self._file.events)

    @cached_property
    def told(self) -> list[tuple[int, memoryview, int]]:
        """(type, bytes, ns) of the records that tell of processes, in the order of time."""
        clock = Clock(self._file.events)
        found = []
        for offset in self._others.tolist():
            kind, record = self._record(offset)
            if kind in _OF_PROCESSES:
                time = offset if self.untimed else clock.time(record, 0) or 0
                found.append((kind, record, time))
        return sorted(found, key=lambda one: one[2])

    @cached_property
    def has_unseen(self) -> bool:
        """True if it is of a PID namespace that does not show all of its tasks."""
        return any(is_unseen(record) for _, record, _ in self.told)

    @cached_property
    def tasks(self) -> Tasks:
        return Tasks(self.told)

    @cached_property
    def wall_offset_ns(self) -> int | None:
        section = self._file.features.get(Feature.CLOCK_DATA)
        if section is None or len(section) < _CLOCK.size:
            return None
        _, _, wall, clock = _CLOCK.unpack_from(section)
        offset = int(wall) - int(clock)
        return offset if abs(offset) < 1 << 63 else None

    @cached_property
    def _host_name(self) -> bytes:
        return (self._file.text(Feature.HOSTNAME) or "").encode(errors="replace")

    def _host(self, rows: int) -> Column:
        # All batches but the last are of one size.
        found = self._last_host
        if found is None or len(found) != rows:
            name = self._host_name
            offsets = np.arange(rows + 1, dtype="i8") * len(name)
            found = Column("host", "text", np.frombuffer(name * rows, "u1"), offsets)
            self._last_host = found
        return found

    @cached_property
    def symbolizer(self) -> Symbolizer:
        from perfkeep.analysis.naming import symbolizer

        return symbolizer(self._file, self.told, self._kallsyms, self._images, self.untimed)

    def kernel_place(self, address: int, offset: bool) -> str:
        from perfkeep.analysis.mappings import KERNEL

        found = self.symbolizer.place(KERNEL, address)
        if not address or not found.name:  # a null pointer is no function
            return f"{address:#x}"
        return f"{found.name}+{found.offset:#x}" if offset else found.name

    def beside(self, attr: Attr, columns: list[Column], offsets: Ints) -> list[Column]:
        """These columns of the samples at these offsets, with the name of the thread, the host and wall clock, and the period where
        the samples carry none.
        """
        known = {one.name: one.values for one in columns}
        tid, time = known.get("tid"), known.get("time")
        context = []
        if tid is not None:
            context.append(self.tasks.column("comm", tid, offsets if self.untimed else time))
        context.append(self._host(len(columns[0])))
        if time is not None and self.wall_offset_ns is not None:
            context.append(Column("wall", "int", time + np.int64(self.wall_offset_ns)))
        at = next((at for at, one in enumerate(columns) if one.name == "misc"), 0)
        period = constant_period(attr)
        if "period" not in known and period is not None:
            columns = [*columns, Column("period", "int", np.full(len(columns[0]), period, "u8"))]
        return [*columns[:at], *context, *columns[at:]]
