"""The numbers of a sandbox against the headers, through the C compiler.

Those of aarch64 are the generic ones, which are there on every machine.
"""

from __future__ import annotations

import platform
import re
import subprocess

import pytest

from perfkeep.abi import seccomp as abi
from perfkeep.abi.seccomp import AuditArch, Bpf, Capability, Prctl
from perfkeep.testing.requirements import compiler, requires

pytestmark = requires(compiler)

#: What arm64's <asm/unistd.h> defines before it includes the generic one.
_ARM64 = ["RENAMEAT", "NEW_STAT", "SET_GET_RLIMIT", "TIME32_SYSCALLS", "SYS_CLONE3"]
GENERIC = "".join(f"#define __ARCH_WANT_{one}\n" for one in _ARM64)
GENERIC += "#include <asm-generic/unistd.h>"

HEADERS = {
    AuditArch.X86_64: "#include <asm/unistd_64.h>",
    AuditArch.AARCH64: GENERIC,
}

#: The first kernel whose header has the name. Debian 12's header is that of 6.1.
NEWER = {
    "__NR_fchmodat2": "6.6",
    "__NR_map_shadow_stack": "6.6",
    "__NR_futex_wake": "6.7",
    "__NR_futex_wait": "6.7",
    "__NR_futex_requeue": "6.7",
    "__NR_mseal": "6.10",
    "PR_GET_AUXV": "6.4",
    "PR_GET_SHADOW_STACK_STATUS": "6.13",
    "PR_SET_SHADOW_STACK_STATUS": "6.13",
    "PR_LOCK_SHADOW_STACK_STATUS": "6.13",
}


def macros(includes: str) -> dict[str, str]:
    """What the headers define: name, text."""
    done = subprocess.run(
        ["cc", "-E", "-dM", "-x", "c", "-"],
        input=includes,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(re.findall(r"^#define (\w+) (.+)$", done.stdout, re.M))


def value(name: str, known: dict[str, str]) -> int:
    """A macro's number, through the macros that it stands for."""
    text = known[name]
    while text in known:
        text = known[text]
    return int(text, 0)


def check(ours: dict[str, int], includes: str) -> None:
    known = macros(includes)
    absent = ours.keys() - known.keys()
    assert absent <= NEWER.keys(), "misspelt, or newer than this header: then say since when"
    theirs = {name: value(name, known) for name in ours.keys() - absent}
    assert theirs == {name: ours[name] for name in theirs}


@pytest.mark.parametrize("arch", HEADERS, ids=lambda arch: arch.name)
def test_a_system_call_has_the_header_s_number(arch: AuditArch) -> None:
    if arch is AuditArch.X86_64 and platform.machine() != "x86_64":
        pytest.skip("its header is on x86_64 only")
    calls = abi.system_calls(arch)
    assert len(set(calls.values())) == len(calls)
    check({f"__NR_{name}": number for name, number in calls.items()}, HEADERS[arch])


def test_what_aarch64_lacks_has_another_spelling_there() -> None:
    """Its header has one of each; the numbers of the new ones are the same everywhere."""
    x86_64, aarch64 = (abi.system_calls(arch) for arch in HEADERS)
    assert aarch64.keys() < x86_64.keys()
    known = macros(GENERIC)
    for name in x86_64.keys() - aarch64.keys():
        assert f"__NR_{name}" not in known
    assert {aarch64[name] for name in aarch64 if x86_64[name] > 400} == {
        number for number in x86_64.values() if number > 400
    }


def test_capabilities_and_options_are_the_header_s() -> None:
    check(
        {f"CAP_{one.name}": one.value for one in Capability},
        "#include <linux/capability.h>",
    )
    check({f"PR_{one.name}": one.value for one in Prctl}, "#include <linux/prctl.h>")


def test_constants_that_stand_alone_are_the_header_s() -> None:
    names = "#include <linux/prctl.h>\n#include <linux/capability.h>\n#include <linux/seccomp.h>"
    check(
        {
            "PR_CAP_AMBIENT_IS_SET": abi.PR_CAP_AMBIENT_IS_SET,
            "_LINUX_CAPABILITY_VERSION_3": abi.CAPABILITY_VERSION_3,
            "SECCOMP_GET_ACTION_AVAIL": abi.SECCOMP_GET_ACTION_AVAIL,
        },
        names,
    )


def test_an_instruction_is_what_the_header_s_parts_make() -> None:
    known = macros("#include <linux/filter.h>")
    parts = {
        Bpf.LD_W_ABS: ("LD", "W", "ABS"),
        Bpf.AND_K: ("ALU", "AND", "K"),
        Bpf.JEQ_K: ("JMP", "JEQ", "K"),
        Bpf.JGT_K: ("JMP", "JGT", "K"),
        Bpf.JGE_K: ("JMP", "JGE", "K"),
        Bpf.RET_K: ("RET", "K"),
    }
    assert parts.keys() == set(Bpf)
    for instruction, names in parts.items():
        assert instruction == sum(value(f"BPF_{name}", known) for name in names)
