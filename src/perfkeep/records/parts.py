"""What samples of a kind of event are made of, and how their parts become columns. Pure; needs numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from perfkeep.abi.perf_event import BRANCH_BITS, Attr, Branch, ReadFormat, Sample
from perfkeep.abi.records import SAMPLE_WORDS, beyond, bits, word_count
from perfkeep.records import tracepoint
from perfkeep.records.cells import Column, Ints, View, behind
from perfkeep.records.pure_decode import Part
from perfkeep.records.raw import field_column, is_number, number_type

#: The columns of the words that come first: name, type, and where in the word.
_FIRST: dict[Sample, tuple[tuple[str, str, int], ...]] = {
    Sample.IDENTIFIER: (("id", "u8", 0),),
    Sample.IP: (("ip", "u8", 0),),
    Sample.TID: (("pid", "i4", 0), ("tid", "i4", 4)),
    Sample.TIME: (("time", "i8", 0),),
    Sample.ADDR: (("addr", "u8", 0),),
    Sample.ID: (("id", "u8", 0),),
    Sample.STREAM_ID: (("stream_id", "u8", 0),),
    Sample.CPU: (("cpu", "i4", 0),),
    Sample.PERIOD: (("period", "u8", 0),),
}
# In the order in which they lie behind STACK_USER, a word each.
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
# Of READ: before the values, and behind each.
_TIMES = (
    (ReadFormat.TOTAL_TIME_ENABLED, "read_enabled"),
    (ReadFormat.TOTAL_TIME_RUNNING, "read_running"),
)
_BEHIND_VALUE = ((ReadFormat.ID, "read_id"), (ReadFormat.LOST, "read_lost"))
_READ_HANDLED = sum(bit for bit, _ in (*_TIMES, *_BEHIND_VALUE)) | ReadFormat.GROUP


class Kind(NamedTuple):
    """What wrote samples: one event on all of its CPUs.

    Attributes:
        ids: the kernel's; none: nothing tells its samples from others', so it is the only one.
        format: what tracefs says of a tracepoint's fields, or "".
        tracepoint: "sched:sched_switch", whatever the event is called; "": it is none, or not known.
    """

    name: str
    attr: Attr
    ids: Sequence[int]
    format: str
    tracepoint: str = ""


class SamplePart(NamedTuple):
    """The header, something in a sample whose length it says itself, or a few words.

    Attributes:
        extent: how long it is, see records.pure_decode.Part.
        fields: (offset, numpy type) of integers that each has.
        columns: makes them of the data, where the part begins in each sample, what it counts there,
            and the fields.
    """

    extent: tuple[Part, int, int]
    fields: list[tuple[int, str]]
    columns: Callable[[View, Ints, Ints, list[Ints]], list[Column]]


def parts_of(kind: Kind) -> list[SamplePart]:
    """The parts of a sample in order, up to the first whose length is not known."""
    attr = kind.attr
    unknown = unread(attr)
    found = [
        _numbers([("misc", 4, "u2")], (Part.WORDS, 1, 0)),
        _numbers(_first(attr), (Part.WORDS, word_count(attr.sample_type, SAMPLE_WORDS), 0)),
    ]
    for fields, make in _STEPS:
        if unknown & fields or (unknown and fields == Sample.AUX):
            break  # what a later kernel adds lies before AUX
        if attr.sample_type & fields:
            found.append(make(kind))
    return found


def unread(attr: Attr) -> int:
    """The bits of sample_type that this module cannot decode, 0 when it reads whole samples.

    A bit counts as readable because there is code for it here, not because it has a name.
    """
    found = beyond(attr.sample_type, _HANDLED)
    if beyond(attr.read_format, _READ_HANDLED):
        found |= attr.sample_type & Sample.READ
    if beyond(attr.branch_sample_type, BRANCH_BITS):
        found |= attr.sample_type & Sample.BRANCH_STACK
    return int(found)


def _numbers(
    wanted: Sequence[tuple[str, int, str]],
    extent: tuple[Part, int, int],
    rest: Callable[[View, Ints, Ints], list[Column]] = lambda *_: [],
) -> SamplePart:
    """
    Args:
        wanted: (name, offset, numpy type) of columns of integers.
        rest: makes the columns behind them.
    """
    names = [name for name, _, _ in wanted]

    def columns(view: View, at: Ints, counts: Ints, fields: list[Ints]) -> list[Column]:
        found = [Column(name, "int", one) for name, one in zip(names, fields, strict=True)]
        return found + rest(view, at, counts)

    return SamplePart(extent, [(offset, type) for _, offset, type in wanted], columns)


def _first(attr: Attr) -> list[tuple[str, int, str]]:
    """The fields of fixed size that come first."""
    present = [_FIRST[field] for field in SAMPLE_WORDS if attr.sample_type & field]
    return [
        (name, 8 * number + inside, type)
        for number, parts in enumerate(present)
        for name, type, inside in parts
    ]


def _words(names: Sequence[str]) -> SamplePart:
    return _numbers(_row(names), (Part.WORDS, len(names), 0))


def _row(names: Sequence[str], begin: int = 0) -> list[tuple[str, int, str]]:
    """Words one behind the other."""
    return [(name, begin + 8 * number, "u8") for number, name in enumerate(names)]


_CALL_CHAIN = _numbers(
    [], (Part.LIST, 0, 8), lambda view, at, counts: [view.lists("callchain", at + 8, counts)]
)
# As much of the stack as the kernel could read.
_STACK = _numbers(
    [], (Part.STACK, 0, 0), lambda view, at, sizes: [view.blobs("user_stack", at + 8, sizes)]
)
_AUX = _numbers([], (Part.LIST, 0, 1), lambda view, at, sizes: [view.blobs("aux", at + 8, sizes)])
_BYTES = _numbers([], (Part.BLOB, 0, 0), lambda view, at, sizes: [view.blobs("raw", at + 4, sizes)])


def _counts(attr: Attr) -> SamplePart:
    """READ: struct read_format."""
    how = attr.read_format
    times = [name for bit, name in _TIMES if how & bit]
    each = ["read_value", *(name for bit, name in _BEHIND_VALUE if how & bit)]
    if not how & ReadFormat.GROUP:
        return _words([each[0], *times, *each[1:]])
    begin, width = 8 + 8 * len(times), len(each)

    def lists(view: View, at: Ints, counts: Ints) -> list[Column]:
        return _interleaved(view.lists("", at + begin, counts * width), each, counts)

    return _numbers(_row(times, 8), (Part.LIST, 8 * len(times), 8 * width), lists)


def _interleaved(whole: Column, names: Sequence[str], counts: Ints) -> list[Column]:
    """Lists of structs of so many words, as a list for each word."""
    offsets = behind(counts)
    return [
        Column(name, "ints", whole.values[at :: len(names)], offsets)
        for at, name in enumerate(names)
    ]


def _branches(attr: Attr) -> SamplePart:
    """Three words each: from, to, flags; with COUNTERS one more each behind them all."""
    names = [f"branch_{name}" for name in ("from", "to", "flags")]
    before = ["branch_hw_index"] if attr.branch_sample_type & Branch.HW_INDEX else []
    counted = bool(attr.branch_sample_type & Branch.COUNTERS)
    begin = 8 + 8 * len(before)

    def lists(view: View, at: Ints, counts: Ints) -> list[Column]:
        found = _interleaved(view.lists("", at + begin, counts * 3), names, counts)
        if counted:
            found.append(view.lists("branch_counters", at + begin + 24 * counts, counts))
        return found

    return _numbers(_row(before, 8), (Part.LIST, begin - 8, 32 if counted else 24), lists)


def _registers(which: str, mask: int) -> SamplePart:
    return _numbers(
        _row([f"{which}_abi"]),
        (Part.REGISTERS, mask.bit_count(), 0),
        lambda view, at, counts: [view.lists(f"{which}_regs", at + 8, counts)],
    )


def _raw(kind: Kind) -> SamplePart:
    """A tracepoint's own fields; of any other event its bytes."""
    parsed = tracepoint.fields(kind.format) if kind.format else ()
    if not parsed:
        return _BYTES

    def columns(view: View, at: Ints, sizes: Ints, fields: list[Ints]) -> list[Column]:
        begin, found = at + 4, iter(fields)
        return [
            field_column(view, one, begin, sizes, next(found) if is_number(one) else None)
            for one in parsed
        ]

    return SamplePart(
        (Part.BLOB, max(one.offset + one.size for one in parsed), 0),
        [(4 + one.offset, number_type(one)) for one in parsed if is_number(one)],
        columns,
    )


def _words_of(table: Sequence[tuple[Sample, str]]) -> Callable[[Kind], SamplePart]:
    return lambda kind: _words([name for bit, name in table if kind.attr.sample_type & bit])


#: The fields behind the first words, in order, and the part that they become.
_STEPS: tuple[tuple[Sample, Callable[[Kind], SamplePart]], ...] = (
    (Sample.READ, lambda kind: _counts(kind.attr)),
    (Sample.CALLCHAIN, lambda _: _CALL_CHAIN),
    (Sample.RAW, _raw),
    (Sample.BRANCH_STACK, lambda kind: _branches(kind.attr)),
    (Sample.REGS_USER, lambda kind: _registers("user", kind.attr.sample_regs_user)),
    (Sample.STACK_USER, lambda _: _STACK),
    (bits(bit for bit, _ in _LAST), _words_of(_LAST)),
    (Sample.REGS_INTR, lambda kind: _registers("intr", kind.attr.sample_regs_intr)),
    (bits(bit for bit, _ in _VERY_LAST), _words_of(_VERY_LAST)),
    (Sample.AUX, lambda _: _AUX),
)
_HANDLED = bits((*_FIRST, *(fields for fields, _ in _STEPS)))
