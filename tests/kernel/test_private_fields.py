"""Registers and stacks of programs are for a recording's owner: a guest sees no byte of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import perfkeep
from perfkeep import events
from perfkeep.abi.perf_event import Sample
from perfkeep.abi.records import Record
from perfkeep.client.connection import disconnect
from perfkeep.client.event import ALL_TASKS, PerfEvent
from perfkeep.client.opening import kind_of
from perfkeep.events.opening import for_flight_ring
from perfkeep.formats.perf_data import reader
from perfkeep.kernel.syscalls import perf_event_open
from perfkeep.testing.load import heartbeat
from perfkeep.testing.requirements import perf_events, requires, root
from support.instance import Running
from support.nobody import AsNobody
from support.waiting import Eventually

pytestmark = requires(perf_events, root)

#: General registers, which every architecture has.
_REGISTERS = 0xFF
_STACK = 1024
_HEAD = Sample.IDENTIFIER | Sample.IP | Sample.TID | Sample.TIME | Sample.CPU
#: Offset of what is private: behind the record's header and the five words of _HEAD.
_PRIVATE = 48
#: Words that say how long the rest is: the ABI of the registers, the size of the copy of the stack.
_ABI, _SIZE = 0, 9


def start() -> perfkeep.Recording:
    """A recording of CPU 0 with registers and stacks in it, which everyone may read."""
    (event,) = events.parse("context-switches/period=1/")
    attr = replace(
        for_flight_ring(event, call_chains=False),
        sample_type=_HEAD | Sample.REGS_USER | Sample.STACK_USER | Sample.REGS_INTR,
        sample_regs_user=_REGISTERS,
        sample_regs_intr=_REGISTERS,
        sample_stack_user=_STACK,
    )
    with PerfEvent(perf_event_open(attr, ALL_TASKS, 0), kind_of(event, attr), 0) as opened:
        opened.enable()
        opened.unclaim("private")
    recording = perfkeep.Recording("private")
    recording.chmod(0o604)
    return recording


def samples(pid: int) -> list[list[int]]:
    """Words of each sample of a process behind its head."""
    with perfkeep.Recording("private").snapshot() as snapshot, snapshot.open() as file:
        data = reader.parse(memoryview(file.read()))
    return [
        memoryview(record)[_PRIVATE:].cast("Q").tolist()
        for kind, record in data.records()
        if kind == Record.SAMPLE and struct.unpack_from("=I", record, 24)[0] == pid
    ]


@contextmanager
def addresses_shown() -> Iterator[None]:
    """Settings with which the kernel shows its addresses to everybody."""
    files = {Path(f"/proc/sys/kernel/{name}"): value for name, value in _SHOWN}
    before = {path: path.read_text() for path in files}
    try:
        for path, value in files.items():
            path.write_text(value)
        yield
    finally:
        for path, value in before.items():
            path.write_text(value)


_SHOWN = (("perf_event_paranoid", "1"), ("kptr_restrict", "0"))


@pytest.mark.parametrize("shown", [False, True], ids=["addresses hidden", "addresses shown"])
def test_a_guest_s_copy_has_no_byte_of_registers_and_stacks_and_the_owner_s_has_all(
    reachable: Running, as_nobody: AsNobody, eventually: Eventually, shown: bool
) -> None:
    recording = start()
    with heartbeat() as pid:
        eventually(lambda: len(samples(pid)) > 20)
        recording.disable()
        mine = samples(pid)
        disconnect()
        if shown:
            with addresses_shown():
                theirs = as_nobody(lambda: samples(pid))
        else:
            theirs = as_nobody(lambda: samples(pid))
    assert len(theirs) == len(mine) > 20
    for own, guest in zip(mine, theirs, strict=True):
        assert own[_ABI] and own[_SIZE] == _STACK and any(own[1:9])
        kept = {_ABI, _SIZE} | ({len(own) - 9} if own[len(own) - 9] else set())
        assert {at for at, word in enumerate(guest) if word} <= kept
        assert [guest[at] for at in (_ABI, _SIZE)] == [own[_ABI], _STACK]
    assert any(any(own[10:]) for own in mine)
