"""What the native core and its twin in Python make of samples: the same."""

from __future__ import annotations

import struct
from array import array
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.records import Record
from perfkeep.records import pure
from perfkeep.records.pure_decode import Part
from perfkeep.testing.assembler import Assembler, record
from perfkeep.testing.twins import native


def test_records_are_split_by_what_wrote_them(core: ModuleType) -> None:
    one, two, three = (Assembler(id=id) for id in (7, 9, 11))
    parts = [one.sample(1), two.sample(2), one.comm(1, 1, b"x"), three.sample(3), one.sample(4)]
    data = b"".join(parts)
    at = [sum(map(len, parts[:n])) for n in range(len(parts))]
    ids, kinds = struct.pack("=QQ", 7, 9), struct.pack("=II", 1, 0)
    end, lost, found = core.split(data + b"rubbish!", 0, 1 << 60, 8, ids, kinds, 2)
    assert (end, lost) == (len(data), 0)
    assert [list(array("q", some)) for some in found] == [[at[1]], [at[0], at[4]], [at[2]], [at[3]]]


def test_without_ids_every_sample_is_of_the_only_kind(core: ModuleType) -> None:
    data = Assembler().sample(1) + Assembler().lost(5, 2) + Assembler().sample(3)
    _, lost, found = core.split(data, 0, len(data), -1, b"", b"", 1)
    assert (lost, [len(some) // 8 for some in found]) == (5, [2, 1, 0])


@given(data=st.binary(max_size=400), start=st.integers(0, 50), at=st.integers(-1, 40))
def test_both_split_anything_alike(data: bytes, start: int, at: int) -> None:
    arguments = (data, start, len(data), at, struct.pack("=Q", 7), struct.pack("=I", 0), 1)
    assert native().split(*arguments) == pure.split(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [(b"", -1, 0, 8, b"", b"", 1), (b"", 0, 0, 8, bytes(8), b"", 1), (b"", 0, 0, 8, b"", b"", -1)],
)
def test_what_makes_no_sense_is_refused(core: ModuleType, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="every id have a kind"):
        core.split(*arguments)


SPANS = st.lists(st.tuples(st.integers(-5, 60), st.integers(-5, 60)), max_size=8)


def outcome(function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (IndexError, ValueError) as error:
        return type(error)


@given(data=st.binary(max_size=60), spans=SPANS, room=st.integers(-1, 1))
def test_both_join_alike_and_nothing_outside(
    data: bytes, spans: list[tuple[int, int]], room: int
) -> None:
    places = array("q", [at for at, _ in spans])
    lengths = array("q", [length for _, length in spans])
    fits = all(at >= 0 and n >= 0 and at + n <= len(data) for at, n in spans)
    size = max(0, sum(lengths) + room) if fits else 8

    def joined(core: Any) -> bytes:
        out = bytearray(size)
        core.join(data, places, lengths, out)
        return bytes(out)

    theirs = outcome(joined, pure)
    assert outcome(joined, native()) == theirs
    if not fits:
        assert theirs is IndexError
    elif size != sum(lengths):
        assert theirs is ValueError
    else:
        assert theirs == b"".join(data[at : at + n] for at, n in spans)


@given(data=st.binary(max_size=60), spans=SPANS)
def test_both_read_text_alike_and_nothing_outside(
    data: bytes, spans: list[tuple[int, int]]
) -> None:
    places = array("q", [at for at, _ in spans])
    lengths = array("q", [length for _, length in spans])
    theirs = outcome(pure.texts, data, places, lengths)
    assert outcome(native().texts, data, places, lengths) == theirs
    fits = all(at >= 0 and n >= 0 and at + n <= len(data) for at, n in spans)
    assert (theirs is IndexError) == (not fits)


NUMBERS = st.sampled_from([-1, 0, 1, 2, 8, 16, 2**16, 2**32])
PARTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(Part), st.integers(0, 9), st.integers(0, 9)),
        st.tuples(st.integers(-1, 5), NUMBERS, NUMBERS),
    ),
    max_size=4,
)
FIELDS = st.lists(st.tuples(st.integers(-2, 4), st.integers(-1, 12), st.integers(0, 9)), max_size=3)
# Small words, so that what counts something often fits.
BODIES = st.lists(
    st.integers(0, 40).map(lambda one: struct.pack("=Q", one)) | st.binary(max_size=12)
)


@given(
    bodies=st.lists(BODIES.map(b"".join), max_size=4),
    parts=PARTS,
    fields=FIELDS,
    elsewhere=st.lists(st.integers(-9, 400), max_size=1),
    room=st.sampled_from([0, 0, 0, 0, 1]),
)
def test_both_decode_alike_and_nothing_outside(
    bodies: list[bytes],
    parts: list[tuple[int, int, int]],
    fields: list[tuple[int, int, int]],
    elsewhere: list[int],
    room: int,
) -> None:
    samples = [record(Record.SAMPLE, body) for body in bodies]
    places = [sum(map(len, samples[:at])) for at in range(len(samples))] + elsewhere
    wanted = b"".join(struct.pack("=qqq", *one) for one in parts)
    read = b"".join(struct.pack("=iii", *one) for one in fields)

    def decoded(core: Any) -> Any:
        starts, counts = (bytearray(8 * len(parts) * len(places)) for _ in range(2))
        fits = bytearray(len(places) + room)
        columns = tuple(bytearray(width * len(places)) for _, _, width in fields)
        data = b"".join(samples)
        if core.decode(data, array("q", places), wanted, read, starts, counts, fits, columns):
            return starts, counts, fits, columns
        return fits

    theirs = outcome(decoded, pure)
    assert outcome(decoded, native()) == theirs
    if isinstance(theirs, tuple):
        begins, counts = (struct.unpack(f"={len(one) // 8}q", one) for one in theirs[:2])
        assert all(8 <= at <= sum(map(len, samples)) for at in begins)
        assert all(count >= 0 for count in counts)


def test_where_the_parts_of_a_sample_lie_is_found(core: ModuleType) -> None:
    body = struct.pack("=QQ", 5, 6) + struct.pack("=QHHHH", 1, 1, 2, 3, 4)
    body += struct.pack("=I12s", 12, b"twelve bytes") + struct.pack("=QQ", 1, 9)
    body += struct.pack("=Q8sQ", 8, b"stack...", 5)
    data = bytes(16) + record(Record.SAMPLE, body)
    parts = [
        (Part.WORDS, 2, 0), (Part.LIST, 2, 6), (Part.BLOB, 3, 0), (Part.REGISTERS, 1, 0),
        (Part.STACK, 0, 0),
    ]  # fmt: skip
    fields = [(-1, 6, 2), (0, 8, 8), (1, 8, 2), (2, 4, 3), (3, 0, 4)]
    starts, counts, fits = bytearray(40), bytearray(40), bytearray(1)
    columns = tuple(bytearray(width) for _, _, width in fields)
    assert core.decode(
        data, array("q", [16]), b"".join(struct.pack("=qqq", *one) for one in parts),
        b"".join(struct.pack("=iii", *one) for one in fields), starts, counts, fits, columns,
    )  # fmt: skip
    assert struct.unpack("=5q", starts) == (24, 40, 56, 72, 88)
    assert struct.unpack("=5q", counts) == (0, 1, 12, 1, 5)
    assert [int.from_bytes(one, "little") for one in columns[:3]] == [8 + len(body), 6, 1]
    assert (bytes(columns[3]), columns[4][0]) == (b"twe", 1)


@given(
    texts=st.lists(st.binary(max_size=20), max_size=5),
    numbers=st.lists(st.integers(-1, 6), max_size=9),
    more=st.sampled_from([b"", bytes(16)]),
    wrong=st.sampled_from([0, 0, 0, 1, -9]),
)
def test_both_spell_alike(texts: list[bytes], numbers: list[int], more: bytes, wrong: int) -> None:
    whole = b"".join(texts) + more
    begins = array("q", [sum(map(len, texts[:at])) for at in range(len(texts) + 1)])
    begins[-1] += wrong
    theirs = outcome(pure.spell, whole, begins, array("q", numbers))
    assert outcome(native().spell, whole, begins, array("q", numbers)) == theirs
    if not wrong:
        fits = all(0 <= one < len(texts) for one in numbers)
        assert (theirs is IndexError) == (not fits)
        assert not fits or theirs[1] == b"".join(texts[one] for one in numbers)


MOMENTS = st.tuples(st.integers(-1, 70), st.integers(0, 30))


@given(
    changes=st.lists(st.tuples(MOMENTS, st.integers(0, 9)), max_size=30, unique_by=lambda o: o[0]),
    asked=st.lists(MOMENTS | st.tuples(st.sampled_from([3, 67]), st.integers(0, 30)), max_size=30),
    timed=st.booleans(),
)
def test_both_know_what_was_so_at_a_time(
    changes: list[tuple[tuple[int, int], int]], asked: list[tuple[int, int]], timed: bool
) -> None:
    flat = array(
        "q", [number for (one, ns), value in sorted(changes) for number in (one, ns, value)]
    )
    whose = array("q", [one for one, _ in asked])
    times = array("q", [ns for _, ns in asked] if timed else [])

    def known(core: Any) -> list[int]:
        out = array("q", bytes(8 * len(asked)))
        core.latest(flat, whose, times, out)
        return list(out)

    def expected(one: int, ns: int) -> int:
        own = sorted((at, value) for (of, at), value in changes if of == one)
        before = [value for at, value in own if timed and at <= ns]
        first = [] if timed else [value for _, value in own[:1]]
        return (before or first or [-1])[-1]

    assert known(pure) == known(native()) == [expected(*one) for one in asked]


def test_a_row_without_a_time_or_without_room_is_refused(core: ModuleType) -> None:
    for times, room in ((8, 16), (16, 8)):
        with pytest.raises(ValueError, match="every row needs a time"):
            core.latest(b"", bytes(16), bytes(times), bytearray(room))
