"""perfkeep.broker.rings: which bytes of a ring are valid, and in which order they are copied.

The model is a kernel that writes one byte after the other into a small ring.
"""

from __future__ import annotations

import mmap
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import DATA_HEAD_OFFSET
from perfkeep.broker.rings import MappedRing, pieces
from perfkeep.kernel.fd import OwnedFd

SIZES = st.integers(0, 6).map(lambda bits: 1 << bits)


def write(size: int, count: int, backward: bool) -> tuple[list[int], int]:
    """A ring after `count` bytes numbered 0, 1, … were written to it, and its data_head."""
    ring, head = [-1] * size, 0
    for number in range(count):
        if backward:
            head = (head - 1) % (1 << 64)
            ring[head % size] = number
        else:
            ring[head % size] = number
            head += 1
    return ring, head


def copied(ring: list[int], head: int, backward: bool) -> list[int]:
    spans = pieces(head, len(ring), backward)
    return [ring[at] for start, end in spans for at in range(start, end)]


@given(SIZES, st.integers(0, 300))
def test_a_backward_ring_is_copied_from_the_newest_byte_to_the_oldest(
    size: int, count: int
) -> None:
    ring, head = write(size, count, True)
    assert copied(ring, head, True) == list(range(count))[::-1][: min(count, size)]


@given(SIZES, st.integers(0, 300))
def test_a_forward_ring_is_copied_from_the_oldest_byte_to_the_newest(size: int, count: int) -> None:
    ring, head = write(size, count, False)
    assert copied(ring, head, False) == list(range(count))[max(0, count - size) :]


@given(SIZES, st.integers(0, (1 << 64) - 1), st.booleans())
def test_at_any_head_the_pieces_lie_in_the_ring_and_do_not_overlap(
    size: int, head: int, backward: bool
) -> None:
    found = pieces(head, size, backward)
    bytes_ = [at for start, end in found for at in range(start, end)]
    written = (-head if backward else head) % (1 << 64)
    assert len(bytes_) == len(set(bytes_)) == min(written, size)
    assert all(0 <= at < size for at in bytes_)
    assert len(found) <= 2


def test_an_empty_ring_has_nothing_to_copy() -> None:
    assert pieces(0, 4096, True) == pieces(0, 4096, False) == []


@pytest.mark.parametrize("held_up", [1, 3, 100])
def test_a_copy_that_was_held_up_until_all_of_it_was_overwritten_is_made_again(
    monkeypatch: pytest.MonkeyPatch, held_up: int
) -> None:
    size = mmap.PAGESIZE
    with OwnedFd(os.memfd_create("ring")) as owner:
        os.truncate(owner.fileno(), size + mmap.PAGESIZE)
        write, written, copies = os.pwrite, 0, 0

        def advance(by: int) -> None:
            nonlocal written
            written += by
            write(owner.fileno(), (-written % (1 << 64)).to_bytes(8, "little"), DATA_HEAD_OFFSET)

        def slow(fd: int, data: memoryview, offset: int) -> int:
            nonlocal copies
            copies += 1
            advance(size if copies <= held_up else 8)
            return write(fd, data, offset)

        advance(size)
        ring = MappedRing(0, owner, b"key", size, backward=True)
        monkeypatch.setattr(os, "pwrite", slow)
        copy = ring.copy()
        copy.fd.close()
    assert copy.bytes == size
    # Whoever is faster than that every time is told how much is gone, and not waited for.
    assert copies == min(held_up + 1, 4)
    assert (copy.head_before - copy.head_after) % (1 << 64) == (8 if held_up < 4 else size)
