"""From the bytes of records to columns: one set for every kind of event. Pure; needs numpy.

Every sample field that Linux 6.18 writes becomes a column, and every field of a tracepoint. What
does not fit its record is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from perfkeep import records
from perfkeep.abi.perf_event import Attr, Branch, ReadFormat, Sample
from perfkeep.abi.records import HEADER_SIZE
from perfkeep.errors import DataError
from perfkeep.records import tracepoint
from perfkeep.records.cells import Column, Cursor, Ints, View, behind
from perfkeep.records.raw import CONTEXT, field_column, is_number, number_type
from perfkeep.records.tracepoint import Field

#: Fields of one word each that come first, and their columns: name, and where in the word.
_FIRST: tuple[tuple[Sample, tuple[tuple[str, str, int], ...]], ...] = (
    (Sample.IDENTIFIER, (("id", "u8", 0),)),
    (Sample.IP, (("ip", "u8", 0),)),
    (Sample.TID, (("pid", "i4", 0), ("tid", "i4", 4))),
    (Sample.TIME, (("time", "i8", 0),)),
    (Sample.ADDR, (("addr", "u8", 0),)),
    (Sample.ID, (("id", "u8", 0),)),
    (Sample.STREAM_ID, (("stream_id", "u8", 0),)),
    (Sample.CPU, (("cpu", "i4", 0),)),
    (Sample.PERIOD, (("period", "u8", 0),)),
)
_FIRST_BITS = sum(bit for bit, _ in _FIRST)
# In the order in which they lie behind STACK_USER.
_LAST = (
    (Sample.WEIGHT | Sample.WEIGHT_STRUCT, "weight"),
    (Sample.DATA_SRC, "data_src"),
    (Sample.TRANSACTION, "transaction"),
)
_VERY_LAST = (
    (Sample.PHYS_ADDR, "phys_addr"),
    (Sample.CGROUP, "cgroup"),
    (Sample.DATA_PAGE_SIZE, "data_page_size"),
    (Sample.CODE_PAGE_SIZE, "code_page_size"),
)


class Kind(NamedTuple):
    """What wrote samples: one event on all of its CPUs.

    Attributes:
        ids: the kernel's; none: nothing tells its samples from others', so it is the only one.
        format: what tracefs says of a tracepoint's fields, or "".
    """

    name: str
    attr: Attr
    ids: Sequence[int]
    format: str


@dataclass(slots=True)
class Table:
    """The samples of one kind of event, in the order in which they lie.

    Attributes:
        offsets: of the records in the data.
        malformed: samples that do not fit their record and are not here.
        unread: kinds of fields that this version does not know, so that nothing behind them could
            be read; 0: none.
    """

    kind: Kind
    offsets: Ints
    columns: list[Column] = field(default_factory=list)
    malformed: int = 0
    unread: int = 0

    def __len__(self) -> int:
        return len(self.offsets)

    def get(self, name: str) -> Column | None:
        return next((one for one in self.columns if one.name == name), None)


@dataclass(slots=True)
class Decoded:
    """A file's records.

    Attributes:
        others: offsets of the records that are no samples.
        unknown: samples of no known event.
        lost: samples that the kernel had no room for, by its own records.
        end: behind the last whole record; less than the data's length: the rest makes no sense.
    """

    tables: list[Table]
    others: Ints
    unknown: int
    lost: int
    end: int


def id_place(attrs: Sequence[Attr]) -> int | None:
    """Where every sample has its event's id; None: not all have it, or not in one place."""
    places = set()
    for attr in attrs:
        kinds = attr.sample_type
        if kinds & Sample.IDENTIFIER:
            places.add(HEADER_SIZE)
        elif kinds & Sample.ID:
            before = Sample.IP | Sample.TID | Sample.TIME | Sample.ADDR
            places.add(HEADER_SIZE + 8 * int(kinds & before).bit_count())
        else:
            return None
    return places.pop() if len(places) == 1 else None


def decode(data: memoryview, kinds: Sequence[Kind]) -> Decoded:
    """All records of a file's data section, or of a ring's copy in one piece.

    Raises:
        DataError: there are several kinds of events, and nothing tells whose a sample is.
    """
    place = id_place([kind.attr for kind in kinds])
    if place is None and len(kinds) > 1:
        raise DataError("samples of several events, and no ids that tell them apart", 0)
    pairs = sorted((id, at) for at, kind in enumerate(kinds) for id in kind.ids)
    ids = np.array([id for id, _ in pairs], "u8")
    numbers = np.array([at for _, at in pairs], "u4")
    one = place is None or (len(kinds) == 1 and not pairs)
    end, lost, found, smallest = records.split(
        data, 0, len(data), -1 if one or place is None else place,
        ids.tobytes(), numbers.tobytes(), len(kinds),
    )  # fmt: skip
    offsets = [np.frombuffer(one, "i8") for one in found]
    view = View(data)
    tables = [
        _table(view, kind, some, size)
        for kind, some, size in zip(kinds, offsets[:-2], smallest[:-2], strict=True)
    ]
    return Decoded(tables, offsets[-2], len(offsets[-1]), lost, end)


def _table(view: View, kind: Kind, offsets: Ints, smallest: int) -> Table:
    if np.bitwise_or.reduce(offsets, initial=0) & 7:
        raise DataError("records that do not begin at a word", int(offsets[offsets % 8 > 0][0]))
    table = Table(kind, offsets, unread=int(kind.attr.sample_type) & ~sum(Sample))
    straight = _straight(view, kind, offsets, smallest)
    if straight is not None:
        table.columns = straight
        return table
    cursor = Cursor(view, offsets)
    table.columns = _sample(cursor, kind)
    if not cursor.all:
        table.malformed = int((~cursor.fits).sum())
        table.offsets = offsets[cursor.fits]
        table.columns = _sample(Cursor(view, table.offsets), kind)
    return table


def _straight(view: View, kind: Kind, offsets: Ints, smallest: int) -> list[Column] | None:
    """All columns in one pass, of samples whose fields are at the same places in each of them.

    Args:
        smallest: bytes of the smallest record.

    Returns:
        None: they are not, or some do not fit; `_sample` finds out which.
    """
    kinds = kind.attr.sample_type
    names, wanted = _fixed(kind.attr)
    end = HEADER_SIZE + 8 * int(kinds & _FIRST_BITS).bit_count()
    parsed: Sequence[Field] = ()
    if kinds & Sample.RAW:
        parsed = tracepoint.fields(kind.format) if kind.format else ()
        if not parsed:
            return None
    if int(kinds) & ~(_FIRST_BITS | Sample.RAW):
        return None
    own = end + 4
    extent = max((one.offset + one.size for one in parsed), default=0)
    numbers = [one for one in parsed if is_number(one)]
    if parsed:
        wanted += [(own + one.offset, number_type(one)) for one in numbers]
        wanted += [(end, "u4"), (6, "u2")]
    if smallest < (own + extent if parsed else end):
        return None
    found = view.gather(offsets, wanted)
    columns = [Column(name, "int", values) for name, values in zip(names, found, strict=False)]
    if not parsed:
        return _in_order(columns)
    sizes, whole = found[-2], found[-1]
    if not ((sizes >= extent) & (sizes <= whole - np.uint16(own))).all():
        return None
    of = dict(zip((one.name for one in numbers), found[len(names) : -2], strict=True))
    others = len(numbers) < len(parsed) or any(one.form != "int" for one in numbers)
    begin, room = (offsets + own, sizes.astype("i8")) if others else (offsets, sizes)
    columns += [field_column(view, one, begin, room, of.get(one.name)) for one in parsed]
    return _in_order(columns)


def _fixed(attr: Attr) -> tuple[list[str], list[tuple[int, str]]]:
    """The columns of the header and of the fields of fixed size, and where they are."""
    names, wanted = ["misc"], [(4, "u2")]
    present = [parts for bit, parts in _FIRST if attr.sample_type & bit]
    for number, parts in enumerate(present):
        for name, type, inside in parts:
            names.append(name)
            wanted.append((HEADER_SIZE + 8 * number + inside, type))
    return names, wanted


def _sample(cursor: Cursor, kind: Kind) -> list[Column]:
    attr = kind.attr
    columns = _first(cursor, attr)
    if attr.sample_type & Sample.READ:
        columns += _counts(cursor, attr)
    if attr.sample_type & Sample.CALLCHAIN:
        columns.append(cursor.list("callchain", cursor.count()))
    if attr.sample_type & Sample.RAW:
        columns += _raw(cursor, kind)
    if attr.sample_type & Sample.BRANCH_STACK:
        columns += _branches(cursor, attr)
    if attr.sample_type & Sample.REGS_USER:
        columns += _registers(cursor, "user", attr.sample_regs_user)
    if attr.sample_type & Sample.STACK_USER:
        columns += _stack(cursor)
    columns += _words(cursor, attr, _LAST)
    if attr.sample_type & Sample.REGS_INTR:
        columns += _registers(cursor, "intr", attr.sample_regs_intr)
    columns += _words(cursor, attr, _VERY_LAST)
    if attr.sample_type & Sample.AUX:
        columns.append(cursor.blob("aux", cursor.count(1)))
    return _in_order(columns)


def _in_order(columns: list[Column]) -> list[Column]:
    """Context first; of two of a name the first counts."""
    found: dict[str, Column] = {}
    for one in columns:
        found.setdefault(one.name, one)
    first = [found.pop(name) for name in CONTEXT if name in found]
    return [*first, *found.values()]


def _first(cursor: Cursor, attr: Attr) -> list[Column]:
    """The header's misc, and the fields of fixed size: all in one go."""
    names, wanted = _fixed(attr)
    size = 8 * int(attr.sample_type & _FIRST_BITS).bit_count()
    cursor.need(size)
    if not cursor.all:  # then these columns are made again, without those that do not fit
        wanted = wanted[:1]
    found = cursor.view.gather(cursor.start, wanted)
    cursor.skip(size)
    return [Column(name, "int", values) for name, values in zip(names, found, strict=False)]


def _words(cursor: Cursor, attr: Attr, which: Iterable[tuple[Sample, str]]) -> list[Column]:
    return [Column(name, "int", cursor.word()) for bit, name in which if attr.sample_type & bit]


def _counts(cursor: Cursor, attr: Attr) -> list[Column]:
    """READ: struct read_format."""
    how = attr.read_format
    times = [
        name
        for bit, name in (
            (ReadFormat.TOTAL_TIME_ENABLED, "read_enabled"),
            (ReadFormat.TOTAL_TIME_RUNNING, "read_running"),
        )
        if how & bit
    ]
    each = [
        name
        for bit, name in (
            (ReadFormat(0), "read_value"), (ReadFormat.ID, "read_id"), (ReadFormat.LOST, "read_lost"),
        )
        if not bit or how & bit
    ]  # fmt: skip
    if not how & ReadFormat.GROUP:
        names = [each[0], *times, *each[1:]]
        return [Column(name, "int", cursor.word()) for name in names]
    counts = cursor.count(8 * len(each))
    columns = [Column(name, "int", cursor.word()) for name in times]
    whole = cursor.list("", counts, 8 * len(each))
    assert whole.offsets is not None
    offsets = whole.offsets // len(each)
    columns += [
        Column(name, "ints", whole.values[at :: len(each)], offsets) for at, name in enumerate(each)
    ]
    return columns


def _branches(cursor: Cursor, attr: Attr) -> list[Column]:
    """Three words each: from, to, flags; with COUNTERS one more each behind them all."""
    counts = cursor.count(24)
    columns = []
    if attr.branch_sample_type & Branch.HW_INDEX:
        columns.append(Column("branch_hw_index", "int", cursor.word()))
    whole = cursor.list("", counts, 24)
    assert whole.offsets is not None
    offsets = whole.offsets // 3
    columns += [
        Column(f"branch_{name}", "ints", whole.values[at::3], offsets)
        for at, name in enumerate(("from", "to", "flags"))
    ]
    if attr.branch_sample_type & Branch.COUNTERS:
        columns.append(cursor.list("branch_counters", counts))
    return columns


def _registers(cursor: Cursor, which: str, mask: int) -> list[Column]:
    abi = cursor.word()
    counts = np.where(abi != 0, mask.bit_count(), 0)
    return [
        Column(f"{which}_abi", "int", abi), cursor.list(f"{which}_regs", counts.astype("i8"))
    ]  # fmt: skip


def _stack(cursor: Cursor) -> list[Column]:
    """As much of the stack as the kernel could read, which it says behind it."""
    room = cursor.count(1)
    begin = cursor.at
    cursor.need(room)
    cursor.skip(room)
    present = np.nonzero(room)[0]
    used = np.zeros(len(room), "i8")
    # Nothing follows where nothing was recorded.
    some = Cursor.__new__(Cursor)
    some.view, some.start, some.end = (
        cursor.view,
        cursor.start[present],
        cursor.end[present],
    )
    some.at, some.fits = cursor.at[present], cursor.fits[present]
    some.all = cursor.all
    used[present] = np.minimum(some.word(), room[present].astype("u8")).astype("i8")
    cursor.at[present], cursor.fits[present] = some.at, some.fits
    cursor.all = some.all
    used = np.where(cursor.fits, used, 0)
    flat = cursor.view.join(np.where(cursor.fits, begin, 0), used)
    return [Column("user_stack", "bytes", flat, behind(used))]


# --- RAW --------------------------------------------------------------------------------------------


def _raw(cursor: Cursor, kind: Kind) -> list[Column]:
    cursor.need(4)
    sizes = cursor.word("u4").astype("i8")
    cursor.skip(4)
    begin = cursor.at
    cursor.need(sizes)
    cursor.skip(sizes)
    parsed = tracepoint.fields(kind.format) if kind.format else ()
    if not parsed:
        sizes = np.where(cursor.fits, sizes, 0)
        begin = np.where(cursor.fits, begin, 0)
        flat = cursor.view.join(begin, sizes)
        return [Column("raw", "bytes", flat, behind(sizes))]
    cursor.only(sizes >= max(one.offset + one.size for one in parsed))
    if not cursor.all:  # then all is made again, without those that do not
        return []
    wanted = [(one.offset, number_type(one)) for one in parsed if is_number(one)]
    numbers = dict(
        zip(
            (one.name for one in parsed if is_number(one)),
            cursor.view.gather(begin, wanted),
            strict=True,
        )
    )
    return [field_column(cursor.view, one, begin, sizes, numbers.get(one.name)) for one in parsed]
