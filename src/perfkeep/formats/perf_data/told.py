"""Which of the records that a sideband told belong into a snapshot."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from perfkeep.abi.records import Record

_HEAD = struct.Struct("=IHHII")
_TASK_EVENT = struct.Struct("=IIIIQ")  # pid, parent, tid, the parent's tid, time
_MMAP2 = struct.Struct("=IIQQQIIQ")  # pid, tid, start, length, offset, major, minor, inode
_PATH_AT = 72
_MAPPED = (Record.MMAP, Record.MMAP2)


def _records(told: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """(type, pid, bytes)"""
    at = 0
    while len(told) - at >= _HEAD.size:
        kind, _, size, pid, _ = _HEAD.unpack_from(told, at)
        if not _HEAD.size <= size <= len(told) - at:
            return
        yield kind, pid, told[at : at + size]
        at += size


def without_mappings(told: memoryview) -> set[int]:
    """Pids of processes that live and that it knows no mapping of: kernel threads, and those that
    have what their parents mapped.
    """
    living: set[int] = set()
    mapped: set[int] = set()
    for kind, pid, record in _records(told):
        if kind in _MAPPED:
            mapped.add(pid)
        elif kind == Record.COMM:
            living.add(pid)
        elif kind in (Record.FORK, Record.EXIT) and len(record) >= 32:
            _, _, tid, _, _ = _TASK_EVENT.unpack_from(record, 8)
            if tid == pid:
                mapped.discard(pid)
                living.add(pid) if kind == Record.FORK else living.discard(pid)
    return living - mapped


class Mapped(NamedTuple):
    """A file that a process executes."""

    path: bytes
    inode: int
    start: int
    length: int


def mapped(records: Iterable[memoryview]) -> dict[bytes, tuple[int, Mapped]]:
    """By path, the last process that mapped it, and where."""
    found = {}
    for record in records:
        if record[0] == Record.MMAP2 and len(record) > _PATH_AT:
            pid, _, start, length, _, _, _, inode = _MMAP2.unpack_from(record, 8)
            path = bytes(record[_PATH_AT:]).split(b"\0")[0]
            found[path] = pid, Mapped(path, inode, start, length)
    return found


def relevant(told: memoryview, first_ns: int | None) -> list[memoryview]:
    """The records without those of tasks that had ended before the first sample, unless a task that
    is needed has its mappings from them.

    Args:
        told: of each task that has ended all its records in one piece, up to its EXIT.
        first_ns: when the first sample was taken; None: there is none, or they have no time.
    """
    if first_ns is None:
        return [record for _, _, record in _records(told)]
    pieces: list[tuple[int, int, list[memoryview]]] = []  # tid, when it ended, records
    piece: list[memoryview] = []
    needed: set[int] = set()
    for kind, _, record in _records(told):
        piece.append(record)
        if kind == Record.EXIT and len(record) >= 32:
            _, _, tid, _, ended_ns = _TASK_EVENT.unpack_from(record, 8)
            pieces.append((tid, ended_ns, piece))
            piece = []
    kept = [piece]
    _note_parents(piece, needed)
    for tid, ended_ns, one in reversed(pieces):
        if ended_ns >= first_ns or tid in needed:
            kept.append(one)
            _note_parents(one, needed)
    return [record for one in reversed(kept) for record in one]


def _note_parents(piece: list[memoryview], needed: set[int]) -> None:
    for record in piece:
        if record[0] == Record.FORK and len(record) >= 32:
            _, parent, _, _, _ = _TASK_EVENT.unpack_from(record, 8)
            needed.add(parent)
