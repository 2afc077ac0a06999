"""What the filter of the sandbox says of each call, worked out here as the kernel would; for both
machines.
"""

from __future__ import annotations

import errno
import struct
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.seccomp import SOCK_FILTER, AuditArch, Bpf, Ret, system_calls
from perfkeep.kernel import sandbox

ARCHES = (AuditArch.X86_64, AuditArch.AARCH64)
REFUSED = Ret.ERRNO | errno.ENOSYS
WORD = st.integers(0, 2**64 - 1)


def verdict(code: bytes, nr: int, arch: int, args: tuple[int, ...] = ()) -> int:
    """What a classic BPF machine returns for struct seccomp_data."""
    words = [*args, *[0] * (6 - len(args))]
    data = struct.pack("=iIQ6Q", nr, arch, 0, *words)
    steps = list(SOCK_FILTER.iter_unpack(code))
    at, a = 0, 0
    while True:
        instruction, if_true, if_false, k = steps[at]
        at += 1
        if instruction == Bpf.LD_W_ABS:
            (a,) = struct.unpack_from("=I", data, k)
        elif instruction == Bpf.AND_K:
            a &= k
        elif instruction == Bpf.RET_K:
            return int(k)
        else:
            holds = {Bpf.JEQ_K: a == k, Bpf.JGT_K: a > k, Bpf.JGE_K: a >= k}[instruction]
            at += if_true if holds else if_false


def allowed() -> list[str]:
    return " ".join(sandbox.ALLOWED).split()


def test_every_number_is_there_for_a_rule_and_every_rule_has_its_number() -> None:
    names = [*allowed(), *sandbox.CHECKED]
    assert len(set(names)) == len(names)
    assert set(names) == system_calls(AuditArch.X86_64).keys()
    assert set(sandbox.CHECKED) < system_calls(AuditArch.AARCH64).keys()


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_what_is_on_the_list_is_allowed(arch: AuditArch) -> None:
    code, calls = sandbox.program(arch), system_calls(arch)
    for name in allowed():
        if name in calls:
            assert verdict(code, calls[name], arch) == Ret.ALLOW, name


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
@given(nr=st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(0, 600)), word=WORD)
def test_what_is_not_on_the_list_is_refused(arch: AuditArch, nr: int, word: int) -> None:
    if nr not in system_calls(arch).values():
        assert verdict(sandbox.program(arch), nr, arch, (word,) * 6) == REFUSED


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
@given(nr=st.integers(0, 600), other=st.integers(0, 2**32 - 1))
def test_calls_of_another_abi_are_refused(arch: AuditArch, nr: int, other: int) -> None:
    code = sandbox.program(arch)
    for one in (other, AuditArch.I386):
        if one != arch:
            assert verdict(code, nr, one) == REFUSED
    assert verdict(code, nr | 0x40000000, arch) == REFUSED  # x32


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
@given(args=st.tuples(WORD, WORD, WORD), name=st.sampled_from(sorted(sandbox.CHECKED)))
def test_arguments_are_looked_at_as_the_table_says(
    arch: AuditArch, args: tuple[int, ...], name: str
) -> None:
    small = tuple(word % 64 for word in args)  # or none would ever fit
    checked = sandbox.CHECKED[name]
    for some in (args, small):
        fits = any(
            all(some[test.argument] & test.mask in test.values for test in way)
            for way in checked.ways
        )
        found = verdict(sandbox.program(arch), system_calls(arch)[name], arch, some)
        assert found == (Ret.ALLOW if fits else Ret.ERRNO | checked.error)


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_the_kernel_takes_a_program_of_that_length(arch: AuditArch) -> None:
    assert len(sandbox.program(arch)) // SOCK_FILTER.size <= 4096  # BPF_MAXINSNS


def test_a_machine_whose_calls_are_not_known_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(machine="riscv64"))
    assert sandbox._install_filter() == "the system calls of riscv64 are not known"


def test_what_holds_is_said_in_one_line() -> None:
    held = sandbox.Sandbox(True, True, ("chown",), ("chown", "setuid"))
    assert str(held) == (
        "no_new_privs, system calls filtered, capabilities chown, for children setuid"
    )
    bare = sandbox.Sandbox(False, False, (), (), "seccomp: Function not implemented")
    assert str(bare) == (
        "no no_new_privs, no filter (seccomp: Function not implemented), capabilities none"
    )
