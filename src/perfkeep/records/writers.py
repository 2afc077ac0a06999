"""Find the event that wrote a record: the one place that looks for ids. Pure.

A sample and a record with a sample_id trailer carry the id of the event that wrote them: in
IDENTIFIER, which lies in one place whatever else an event records, or else in ID. Without either
only a file with a single event tells whose its records are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from perfkeep.abi.perf_event import Attr, Flag
from perfkeep.abi.records import Record, sample_id_at, trailer_id_at
from perfkeep.records.sample import Layout

_HEADER = struct.Struct("=IHH")
_SAMPLE = int(Record.SAMPLE)
_WORD = struct.Struct("=Q")


def id_place(attrs: Sequence[Attr]) -> int | None:
    """Offset at which the samples of all these events have their ids; None: not all have one, or not
    in the same place. Events that write no samples do not matter.
    """
    places = {sample_id_at(attr.sample_type) for attr in attrs if not attr.dummy}
    return places.pop() if len(places) == 1 else None


class Writers:
    """
    Args:
        events: each with the kernel's ids of it, none where its file lists none.
    """

    def __init__(self, events: Iterable[tuple[Attr, Sequence[int]]]) -> None:
        known = list(events)
        self.layouts = [Layout(attr) for attr, _ in known]
        self._numbers = {id: number for number, (_, ids) in enumerate(known) for id in ids}
        attrs = [attr for attr, _ in known]
        self._sample_id_at = id_place(attrs)
        sampling = [number for number, attr in enumerate(attrs) if not attr.dummy]
        #: The event of samples that carry no id.
        self.only = sampling[0] if len(sampling) == 1 else None
        # Several trailers may differ in length: where an id is known, the event must have it there.
        self._trailer_id_at = [
            trailer_id_at(attr.sample_type) if attr.flags & Flag.SAMPLE_ID_ALL else None
            for attr in attrs
        ]
        self._trailer_places = sorted(
            {place for place in self._trailer_id_at if place is not None}, reverse=True
        )

    def of(self, record: memoryview | bytes) -> int | None:
        """The number of the event that wrote a whole record; None: no known one.

        Records that perf or perfkeep made up carry the id 0 in a trailer of the first event.
        """
        if _HEADER.unpack_from(record)[0] == _SAMPLE:
            return self.of_sample(record)
        if len(self.layouts) == 1 and not self._numbers:
            return 0
        for place in self._trailer_places:
            number = self._numbers.get(_word(record, len(record) + place))
            if number is not None and self._trailer_id_at[number] == place:
                return number
        first = self._trailer_id_at[0] if self._trailer_id_at else None
        if first is None:
            return 0 if self.layouts else None
        return 0 if _word(record, len(record) + first) == 0 else None

    def of_sample(self, record: memoryview | bytes) -> int | None:
        """The same of a record that is a sample."""
        place = self._sample_id_at
        if place is None or not self._numbers:
            return self.only
        if place + 8 > len(record):
            return None
        return self._numbers.get(_WORD.unpack_from(record, place)[0])

    def event(self, id: int) -> int | None:
        """The number of the event with an id; None: no known one."""
        return self._numbers.get(id)

    def layout(self, record: memoryview | bytes) -> Layout | None:
        """The layout of a record; None: no known event wrote it."""
        number = self.of(record)
        return None if number is None else self.layouts[number]


def _word(record: memoryview | bytes, place: int) -> int:
    """-1 where the record has no room for one behind its header."""
    if place < _HEADER.size or place + _WORD.size > len(record):
        return -1
    word: int = _WORD.unpack_from(record, place)[0]
    return word
