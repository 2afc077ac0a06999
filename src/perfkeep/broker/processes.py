"""What ran: the kernel's own records of processes, kept while they may still matter.

    FORK, COMM, MMAP2, NAMESPACES, EXIT      by the task that each tells of
    KSYMBOL, BPF_EVENT                       the kernel's own, together

A task has its records as long as it lives, however long ago they came. Those of tasks that have
ended stay until the room is used up; the one that ended first goes first. Records are kept as they
came: of each nothing is read but its type, its size, whose it is and when it came.
"""

from __future__ import annotations

import struct
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import repeat

from perfkeep.abi.perf_event import Sample
from perfkeep.abi.records import SAMPLE_ID_WORDS, Record, word_count
from perfkeep.wire.sideband import ROOM

#: type, misc, size; then pid and tid, or pid and the parent's pid.
_HEAD = struct.Struct("=IHHII")
_TID = struct.Struct("=I")
_TIME = struct.Struct("=Q")
_BEHIND_TIME = SAMPLE_ID_WORDS[SAMPLE_ID_WORDS.index(Sample.TIME) + 1 :]

#: Whose record it is: of the process that its first number names, of the task that its second one
#: does, of a task and its parent, or of the kernel. Plain numbers, which are found faster.
_WHOSE = {
    int(Record.MMAP): "process", int(Record.MMAP2): "process",
    int(Record.COMM): "task", int(Record.NAMESPACES): "task",
    int(Record.FORK): "both tasks", int(Record.EXIT): "both tasks",
    int(Record.KSYMBOL): "kernel", int(Record.BPF_EVENT): "kernel",
}  # fmt: skip

#: For one of them: some map and unmap code for ever.
_ROOM_FOR_ONE = 64 << 10
#: What Python takes for a task beside its records, about: a thread that did nothing else has two
#: records of 64 bytes.
_OVERHEAD = 100
_KERNEL = -1


class Run:
    """Records of one ring, as they lie in one that is written backward.

    Attributes:
        times: of each, by the clock of its event, the oldest first.
        places: where each begins.
    """

    __slots__ = ("_data", "places", "times")

    def __init__(self, data: bytes, sample_type: Sample) -> None:
        """
        Args:
            data: the newest first; whatever is no record ends them.
            sample_type: of the event; says where in a record its time is. Without one it is 0.
        """
        behind = 8 * (1 + word_count(sample_type, _BEHIND_TIME))
        timed = bool(sample_type & Sample.TIME)
        head, word, at, end = _HEAD.unpack_from, _TIME.unpack_from, 0, len(data)
        # Numbers in arrays: objects for each record would take three times as much as all records, and
        # what Python's allocator has once had it seldom gives back.
        times, places = array("Q"), array("I")
        while end - at >= _HEAD.size:
            _, _, size, _, _ = head(data, at)
            if not _HEAD.size <= size <= end - at:
                break
            places.append(at)
            at += size
            times.append(word(data, at - behind)[0] if timed and size >= 8 + behind else 0)
        times.reverse()
        places.reverse()
        self._data = data[:at]
        self.places = places
        self.times = times

    def cut(self, until: int) -> int:
        """Forget those from the first that came later on; gives the bytes of these."""
        kept = next((n for n, time in enumerate(self.times) if time > until), len(self.times))
        # The newest lie first.
        cut = self.places[kept - 1] if kept else len(self._data)
        del self.times[kept:], self.places[kept:]
        return cut

    def record(self, place: int) -> bytes:
        size = _HEAD.unpack_from(self._data, place)[2]
        return self._data[place : place + size]


def in_order(runs: Sequence[Run]) -> bytearray:
    """The records of all runs one after the other, as they came."""
    told = bytearray()
    ways = [zip(run.times, repeat(number), run.places) for number, run in enumerate(runs)]
    for _, number, place in merge(*ways):
        told += runs[number].record(place)
    return told


class Processes:
    """The records, bounded.

    Attributes:
        forgot: records of what may still live had to go, for want of room.
    """

    def __init__(self, room: int = ROOM) -> None:
        self.forgot = False
        self._room = room
        self._bytes = 0
        self._living: dict[int, bytearray] = {}
        #: One after the other, round and round: thousands of pieces of their own would scatter over
        #: the heap, which never shrinks. Where the oldest begins, and the bytes of each.
        self._ended = bytearray(room)
        self._oldest = 0
        self._ended_sizes: deque[int] = deque()
        self._ended_bytes = 0

    def fold(self, data: bytes | bytearray) -> None:
        """Take up records, the oldest first. Whatever is none ends them."""
        unpack, at, end = _HEAD.unpack_from, 0, len(data)
        # One after the other of a task are taken up together.
        task: int | None = None
        begin = 0
        while end - at >= _HEAD.size:
            kind, _, size, pid, other = unpack(data, at)
            if size < _HEAD.size or size > end - at:
                break
            whose, own = _WHOSE.get(kind), None
            if whose == "process":
                own = pid
            elif whose == "task":
                own = other
            elif whose == "kernel":
                own = _KERNEL
            if own != task:
                if task is not None:
                    self._add(task, data[begin:at])
                task, begin = own, at
            if whose == "both tasks" and size >= 24:
                (tid,) = _TID.unpack_from(data, at + 16)
                self._come_or_go(kind, tid, data[at : at + size])
            at += size
        if task is not None:
            self._add(task, data[begin:at])
        self._make_room()

    def _come_or_go(self, kind: int, tid: int, record: bytes | bytearray) -> None:
        if kind == Record.FORK:
            self._end(tid)  # that its last owner ended was lost
            self._add(tid, record)
        elif tid in self._living:
            self._add(tid, record)
            self._end(tid)

    def _add(self, tid: int, record: bytes | bytearray) -> None:
        if not tid:  # of any task that the recording's PID namespace does not show
            return
        task = self._living.get(tid)
        if task is None:
            task = self._living[tid] = bytearray()
            self._bytes += _OVERHEAD
        before = len(task)
        task += record
        if len(task) > _ROOM_FOR_ONE:
            _thin(task)
            self.forgot = True
        self._bytes += len(task) - before

    def _end(self, tid: int) -> None:
        task = self._living.pop(tid, None)
        if task is not None:
            self._bytes -= len(task) + _OVERHEAD
            if len(task) <= self._room:
                self._keep(task)

    def _keep(self, task: bytearray) -> None:
        size, room = len(task), self._room
        while self._ended_bytes + size > room:
            self._forget_oldest()
        at = (self._oldest + self._ended_bytes) % room
        first = min(size, room - at)
        self._ended[at : at + first] = task[:first]
        self._ended[: size - first] = task[first:]
        self._ended_sizes.append(size)
        self._ended_bytes += size
        self._bytes += size + _OVERHEAD

    def _forget_oldest(self) -> None:
        size = self._ended_sizes.popleft()
        self._oldest = (self._oldest + size) % self._room
        self._ended_bytes -= size
        self._bytes -= size + _OVERHEAD

    def _make_room(self) -> None:
        while self._bytes > self._room and self._ended_sizes:
            self._forget_oldest()
        while self._bytes > self._room:
            # The one that has been there for longest: whoever looks finds it in /proc.
            self._bytes -= len(self._living.pop(next(iter(self._living)))) + _OVERHEAD
            self.forgot = True

    def records(self, kernel: bool = True) -> Iterator[bytes | bytearray]:
        """All of them, put together: of each task in the order of time, those that ended first first.

        Args:
            kernel: also those with addresses of the kernel's.
        """
        end = self._oldest + self._ended_bytes
        yield self._ended[self._oldest : end]
        yield self._ended[: max(0, end - self._room)]
        for tid, task in self._living.items():
            if kernel or tid != _KERNEL:
                yield task


def _thin(task: bytearray) -> None:
    """Where it came from stays, and the newest of what it did."""
    _, _, first, _, _ = _HEAD.unpack_from(task)
    at = first
    while len(task) - at > _ROOM_FOR_ONE // 2:
        _, _, size, _, _ = _HEAD.unpack_from(task, at)
        at += size
    del task[first:at]
