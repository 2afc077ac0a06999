"""pprof's profile.proto: https://github.com/google/pprof/blob/main/proto/profile.proto"""

from __future__ import annotations

import gzip

from perfkeep.formats.protobuf import number, packed, piece, text
from perfkeep.formats.sampled import Sampled


class _Strings:
    """The table of strings; the first is the empty one."""

    def __init__(self) -> None:
        self.numbers = {"": 0}

    def __call__(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))


def pprof(sampled: Sampled, count_samples: bool = False) -> bytes:
    """The gzipped profile. Samples of a thread with the same stack are one, with the labels "comm",
    "pid" and "tid".

    Args:
        count_samples: readers show the number of samples first, instead of the sum of their periods.
    """
    strings = _Strings()
    out = bytearray()
    unit = "nanoseconds" if sampled.attr.is_clock else "count"
    kinds = [("samples", "count"), (sampled.event, unit)]
    for kind in kinds:
        out += piece(1, _kind(strings, *kind))
    _samples(out, sampled, strings)
    known = dict.fromkeys(file for _, file in sampled.functions if file)
    files = {"": 0} | {file: at + 1 for at, file in enumerate(known)}
    for file, id in list(files.items())[1:]:
        # Functions are named already: nothing is to be looked up by address.
        out += piece(3, number(1, id) + number(5, strings(file)) + number(7, 1))
    for at, (name, file) in enumerate(sampled.functions):
        id = at + 1
        out += piece(4, number(1, id) + number(2, files[file]) + piece(4, number(1, id)))
        named = number(2, strings(name)) + number(3, strings(name)) + number(4, strings(file))
        out += piece(5, number(1, id) + named)
    if sampled.rows:
        first, last = sampled.rows[0].time, sampled.rows[-1].time
        if sampled.wall_offset_ns is not None:
            out += number(9, first + sampled.wall_offset_ns)
        out += number(10, last - first)
    out += piece(11, _kind(strings, *kinds[1]))
    out += number(12, max((row.period for row in sampled.rows), default=0))
    out += number(13, strings("perfkeep"))
    if count_samples:  # otherwise the last kind
        out += number(14, strings(kinds[0][0]))
    for one in strings.numbers:
        out += text(6, one)
    return gzip.compress(bytes(out), mtime=0)


def _kind(strings: _Strings, name: str, unit: str) -> bytes:
    return number(1, strings(name)) + number(2, strings(unit))


def _samples(out: bytearray, sampled: Sampled, strings: _Strings) -> None:
    counts: dict[tuple[int, str, int, int], list[int]] = {}
    for row in sampled.rows:
        values = counts.setdefault((row.stack, row.comm, row.pid, row.tid), [0, 0])
        values[0] += 1
        values[1] += row.period
    comm_key, pid_key, tid_key = strings("comm"), strings("pid"), strings("tid")
    for (stack, comm, pid, tid), values in counts.items():
        out += piece(
            2,
            packed(1, (one + 1 for one in reversed(sampled.stacks[stack])))
            + packed(2, values)
            + piece(3, number(1, comm_key) + number(2, strings(comm)))
            + piece(3, number(1, pid_key) + number(3, pid))
            + piece(3, number(1, tid_key) + number(3, tid)),
        )
