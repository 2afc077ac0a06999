"""The filter says of each call what it should: run here as the kernel would run it."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.seccomp import MACHINES, SOCK_FILTER, AuditArch, Bpf, Ret
from perfkeep.errors import KernelRefused
from perfkeep.interposer.filter import TRAPPED, program

WORD = st.integers(0, 2**64 - 1)


def verdict(code: bytes, nr: int, arch: int, args: tuple[int, ...]) -> int:
    """What a classic BPF machine returns for struct seccomp_data."""
    data = struct.pack("=iIQ6Q", nr, arch, 0, *args)
    steps = list(SOCK_FILTER.iter_unpack(code))
    at, a = 0, 0
    while True:
        instruction, if_true, if_false, k = steps[at]
        at += 1
        if instruction == Bpf.LD_W_ABS:
            (a,) = struct.unpack_from("=I", data, k)
        elif instruction == Bpf.JEQ_K:
            at += if_true if a == k else if_false
        else:
            assert instruction == Bpf.RET_K
            return int(k)


@pytest.mark.parametrize("machine", MACHINES)
@given(
    nr=st.one_of(st.integers(-(2**31), 2**31 - 1), st.sampled_from([298, 16, 336, 54, 241, 29])),
    arch=st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([int(one) for one in AuditArch])),
    command=st.one_of(WORD, st.sampled_from(TRAPPED), st.sampled_from(TRAPPED).map(lambda c: c | 1 << 40)),
    others=st.tuples(WORD, WORD, WORD, WORD, WORD),
)  # fmt: skip
def test_only_the_calls_that_persistence_concerns_are_trapped(
    machine: str, nr: int, arch: int, command: int, others: tuple[int, ...]
) -> None:
    expected = Ret.ALLOW
    for numbers in MACHINES[machine]:
        if arch == numbers.arch and nr == numbers.perf_event_open:
            expected = Ret.USER_NOTIF
        if arch == numbers.arch and nr == numbers.ioctl and command & 0xFFFF_FFFF in TRAPPED:
            expected = Ret.USER_NOTIF
    args = (others[0], command, *others[1:])
    assert verdict(program(machine), nr, arch, args) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_every_trapped_call_is_trapped(machine: str) -> None:
    code = program(machine)
    for numbers in MACHINES[machine]:
        assert verdict(code, numbers.perf_event_open, numbers.arch, (0,) * 6) == Ret.USER_NOTIF
        for command in TRAPPED:
            args = (3, command, 0, 0, 0, 0)
            assert verdict(code, numbers.ioctl, numbers.arch, args) == Ret.USER_NOTIF


def test_calls_of_x32_are_the_kernel_s_to_answer() -> None:
    x32 = 0x40000000
    for nr in (298 | x32, 16 | x32, 514 | x32):
        args = (3, 0x2408, 0, 0, 0, 0)
        assert verdict(program("x86_64"), nr, AuditArch.X86_64, args) == Ret.ALLOW


def test_a_machine_that_is_not_known_is_refused_in_a_sentence() -> None:
    with pytest.raises(KernelRefused, match="riscv64") as caught:
        program("riscv64")
    assert caught.value.errno == errno.ENOSYS
