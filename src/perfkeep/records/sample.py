"""Where the fields of a record lie: samples by their sample_type, other records by their trailer.

Pure. Layouts are those of perf_event_open(2); the order of fields is the order of its list.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from perfkeep.abi.perf_event import Attr, Flag, ReadFormat, Sample
from perfkeep.abi.records import (
    HEADER_SIZE,
    SAMPLE_ID_WORDS,
    SAMPLE_WORDS,
    Record,
    id_field,
    sample_at,
    trailer_at,
)
from perfkeep.errors import DataError

_HEADER = struct.Struct("=IHH")
_WORD = struct.Struct("=Q")
_TWO = struct.Struct("=II")


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """One PERF_RECORD_SAMPLE. A field that the event does not record is None or empty.

    `time` is in ns of the recording's clock; `raw` a tracepoint's own bytes.
    """

    id: int | None
    ip: int | None
    pid: int | None
    tid: int | None
    time: int | None
    addr: int | None
    cpu: int | None
    period: int | None
    callchain: tuple[int, ...]
    raw: bytes


def constant_period(attr: Attr) -> int | None:
    """The period of samples that carry none; None: unknown, as it varies with a frequency."""
    return None if attr.flags & Flag.FREQ else attr.sample_period or None


class Layout:
    """The offsets of an attr's fields."""

    def __init__(self, attr: Attr) -> None:
        self.attr = attr
        kinds = attr.sample_type
        self._fixed = {
            field: offset
            for field in SAMPLE_WORDS
            if (offset := sample_at(kinds, field)) is not None
        }
        self._variable = HEADER_SIZE + 8 * len(self._fixed)
        self._trailer: dict[Sample, int] = {}
        if attr.flags & Flag.SAMPLE_ID_ALL:
            self._trailer = {
                field: offset
                for field in SAMPLE_ID_WORDS
                if (offset := trailer_at(kinds, field)) is not None
            }
        self._id_field = id_field(kinds)
        self._task_at = self._fixed.get(Sample.TID)
        self._period_at = self._fixed.get(Sample.PERIOD)
        constant = constant_period(attr)
        self._constant_period = 1 if constant is None else constant

    def _word(self, record: memoryview | bytes, field: Sample) -> int | None:
        type, _, size = _HEADER.unpack_from(record)
        if type == Record.SAMPLE:
            at = self._fixed.get(field)
        else:
            back = self._trailer.get(field)
            at = None if back is None else size + back
        if at is None or at + 8 > min(size, len(record)) or at < HEADER_SIZE:
            return None
        return int(_WORD.unpack_from(record, at)[0])

    @property
    def time_offset(self) -> int | None:
        """Offset of a sample's time in its record."""
        return self._fixed.get(Sample.TIME)

    def time(self, record: memoryview | bytes) -> int | None:
        """The record's time, or None when it carries none."""
        return self._word(record, Sample.TIME)

    def id(self, record: memoryview | bytes) -> int | None:
        """The kernel's id of the event that wrote it; None: it carries none."""
        return self._word(record, self._id_field)

    def pid(self, record: memoryview | bytes) -> int | None:
        """The process in which a sample was taken."""
        at = self._task_at
        return None if at is None or at + 8 > len(record) else _TWO.unpack_from(record, at)[0]

    def period(self, record: memoryview | bytes) -> int:
        """The number of events a sample stands for; 1 where neither record nor attr says."""
        at = self._period_at
        if at is None or at + 8 > len(record):
            return self._constant_period
        period: int = _WORD.unpack_from(record, at)[0]
        return period

    def decode(self, record: memoryview | bytes) -> SampleRecord:
        """One whole PERF_RECORD_SAMPLE.

        Raises:
            DataError: a length in it points outside the record.
        """

        def low_high(field: Sample) -> tuple[int | None, int | None]:
            at = self._fixed.get(field)
            return _TWO.unpack_from(record, at) if at is not None else (None, None)

        try:
            pid, tid = low_high(Sample.TID)
            chain, raw = self._variable_fields(record)
            return SampleRecord(
                id=self.id(record),
                ip=self._word(record, Sample.IP),
                pid=pid,
                tid=tid,
                time=self._word(record, Sample.TIME),
                addr=self._word(record, Sample.ADDR),
                cpu=low_high(Sample.CPU)[0],
                period=self._word(record, Sample.PERIOD),
                callchain=chain,
                raw=raw,
            )
        except struct.error as error:
            raise DataError(
                f"a sample of {len(record)} bytes ends too early: {error}", 0
            ) from error

    def tid(self, record: memoryview | bytes) -> int | None:
        """The thread in which a sample was taken."""
        at = self._task_at
        return None if at is None or at + 8 > len(record) else _TWO.unpack_from(record, at)[1]

    def cpu(self, record: memoryview | bytes) -> int | None:
        """The CPU on which a record of any type was written; None: it does not say."""
        word = self._word(record, Sample.CPU)
        return None if word is None else _TWO.unpack(_WORD.pack(word))[0]

    def thread(self, record: memoryview | bytes) -> int | None:
        """The thread in which a record of any type was written; None: it does not say."""
        word = self._word(record, Sample.TID)
        return None if word is None else _TWO.unpack(_WORD.pack(word))[1]

    def counts(self, record: memoryview | bytes) -> list[tuple[int, int]]:
        """(id, count) of the events whose counts a sample carries; read_format must have ID.

        Raises:
            DataError: a number of events that does not fit the record.
        """
        at, how = self._variable, self.attr.read_format
        try:
            size = self._read_size(record, at)
            if size > len(record) - at:
                raise DataError(f"{size} bytes of counts do not fit their record", at)
            words = struct.unpack_from(f"={size // 8}Q", record, at)
        except struct.error as error:
            raise DataError(f"a sample of {len(record)} bytes ends too early", at) from error
        times = (how & (ReadFormat.TOTAL_TIME_ENABLED | ReadFormat.TOTAL_TIME_RUNNING)).bit_count()
        if not how & ReadFormat.GROUP:
            return [(words[1 + times], words[0])]
        first, each = 1 + times, 2 + bool(how & ReadFormat.LOST)
        return list(zip(words[first + 1 :: each], words[first::each], strict=True))

    def raw_span(self, record: memoryview | bytes) -> tuple[int, int] | None:
        """(start, end) of a sample's raw bytes in it; None: it has none.

        Raises:
            DataError: a length in it points outside the record.
        """
        at, kinds = self._variable, self.attr.sample_type
        if not kinds & Sample.RAW:
            return None
        try:
            if kinds & Sample.READ:
                at += self._read_size(record, at)
            if kinds & Sample.CALLCHAIN:
                at += 8 + 8 * int(_WORD.unpack_from(record, at)[0])
            (size,) = struct.unpack_from("=I", record, at)
        except (struct.error, OverflowError) as error:
            raise DataError(f"a sample of {len(record)} bytes ends too early", at) from error
        if size > len(record) - at - 4:
            raise DataError(f"{size} raw bytes do not fit their record", at)
        return at + 4, at + 4 + int(size)

    def _variable_fields(self, record: memoryview | bytes) -> tuple[tuple[int, ...], bytes]:
        at, chain, raw = self._variable, (), b""
        kinds = self.attr.sample_type
        if kinds & Sample.READ:
            at += self._read_size(record, at)
        if kinds & Sample.CALLCHAIN:
            (count,) = _WORD.unpack_from(record, at)
            if count > (len(record) - at - 8) // 8:
                raise DataError(f"a call chain of {count} frames does not fit its record", at)
            chain = struct.unpack_from(f"={count}Q", record, at + 8)
            at += 8 + 8 * count
        if kinds & Sample.RAW:
            (size,) = struct.unpack_from("=I", record, at)
            if size > len(record) - at - 4:
                raise DataError(f"{size} raw bytes do not fit their record", at)
            raw = bytes(record[at + 4 : at + 4 + size])
        return chain, raw

    def _read_size(self, record: memoryview | bytes, at: int) -> int:
        how = self.attr.read_format
        times = bool(how & ReadFormat.TOTAL_TIME_ENABLED) + bool(
            how & ReadFormat.TOTAL_TIME_RUNNING
        )
        each = 1 + bool(how & ReadFormat.ID) + bool(how & ReadFormat.LOST)
        if not how & ReadFormat.GROUP:
            return 8 * (times + each)
        return 8 * (1 + times + each * int(_WORD.unpack_from(record, at)[0]))
