"""abi.perf_event against <linux/perf_event.h>, through the C compiler.

A C program prints each constant under its header name; another reads a packed attr and prints
each field. A name that the header lacks fails, unless it is listed as newer than Debian 12's.
"""

from __future__ import annotations

import enum
import platform
import re
import subprocess
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import pytest

from perfkeep.abi import perf_event as abi
from perfkeep.abi import seccomp
from perfkeep.kernel import syscalls
from perfkeep.testing.requirements import compiler, requires

pytestmark = requires(compiler)

INCLUDES = """
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <linux/time.h>
"""

#: The first kernel whose header has the name. Debian 12's header is that of 6.1.
NEWER = {
    "config3": "6.3",
    "aux_action": "6.13",
}

PREFIXES: dict[type[enum.IntEnum] | type[enum.IntFlag], str] = {
    abi.Type: "PERF_TYPE_",
    abi.Hardware: "PERF_COUNT_HW_",
    abi.Software: "PERF_COUNT_SW_",
    abi.Sample: "PERF_SAMPLE_",
    abi.ReadFormat: "PERF_FORMAT_",
    abi.OpenFlag: "PERF_FLAG_",
    abi.Ioctl: "PERF_EVENT_IOC_",
    abi.ClockId: "CLOCK_",
    seccomp.AuditArch: "AUDIT_ARCH_",
    seccomp.FilterFlag: "SECCOMP_FILTER_FLAG_",
    seccomp.Ret: "SECCOMP_RET_",
    seccomp.AddFd: "SECCOMP_ADDFD_FLAG_",
}

#: Bits of attr's flag word that no header has.
OUR_FLAGS = {"persistent"}

#: Constants that stand alone: ours, in the words of the header.
ALONE = {
    "PERF_CONTEXT_KERNEL": abi.PERF_CONTEXT_KERNEL,
    "PERF_CONTEXT_USER": abi.PERF_CONTEXT_USER,
    "PERF_CONTEXT_MAX": abi.PERF_CONTEXT_MAX,
    "PERF_IOC_FLAG_GROUP": abi.PERF_IOC_FLAG_GROUP,
    "PERF_ATTR_SIZE_VER0": abi.ATTR_SIZE_VER0,
    "_IO('$', 8)": abi.PERF_EVENT_IOC_UNCLAIM,
    "_IO('$', 9)": abi.PERF_EVENT_IOC_CLAIM,
    "SECCOMP_SET_MODE_FILTER": seccomp.SECCOMP_SET_MODE_FILTER,
    "SECCOMP_IOCTL_NOTIF_RECV": seccomp.SECCOMP_IOCTL_NOTIF_RECV,
    "SECCOMP_IOCTL_NOTIF_SEND": seccomp.SECCOMP_IOCTL_NOTIF_SEND,
    "SECCOMP_IOCTL_NOTIF_ID_VALID": seccomp.SECCOMP_IOCTL_NOTIF_ID_VALID,
    "SECCOMP_IOCTL_NOTIF_ADDFD": seccomp.SECCOMP_IOCTL_NOTIF_ADDFD,
    "SECCOMP_IOW(4, __u64)": seccomp.SECCOMP_IOCTL_NOTIF_SET_FLAGS,
    "SECCOMP_USER_NOTIF_FLAG_CONTINUE": seccomp.SECCOMP_USER_NOTIF_FLAG_CONTINUE,
    "sizeof(struct seccomp_notif)": seccomp.NOTIF.size,
    "sizeof(struct seccomp_notif_resp)": seccomp.NOTIF_RESP.size,
    "sizeof(struct seccomp_notif_addfd)": seccomp.NOTIF_ADDFD.size,
    "sizeof(struct sock_filter)": seccomp.SOCK_FILTER.size,
    "offsetof(struct seccomp_data, nr)": seccomp.DATA_NR,
    "offsetof(struct seccomp_data, arch)": seccomp.DATA_ARCH,
    "offsetof(struct seccomp_data, args)": seccomp.DATA_ARGS,
    "BPF_LD | BPF_W | BPF_ABS": seccomp.Bpf.LD_W_ABS,
    "BPF_JMP | BPF_JEQ | BPF_K": seccomp.Bpf.JEQ_K,
    "BPF_RET | BPF_K": seccomp.Bpf.RET_K,
    "offsetof(struct perf_event_mmap_page, data_head)": abi.DATA_HEAD_OFFSET,
    "offsetof(struct perf_event_mmap_page, data_tail)": abi.DATA_TAIL_OFFSET,
    "offsetof(struct perf_event_mmap_page, data_offset)": abi.DATA_OFFSET_OFFSET,
    "offsetof(struct perf_event_mmap_page, data_size)": abi.DATA_SIZE_OFFSET,
}


def c_output(body: str, folder: Path, stdin: bytes = b"") -> list[str]:
    """The lines that `body`, as main() of a C program, prints."""
    source, program = folder / "header.c", folder / "header"
    source.write_text(f"{INCLUDES}\nint main(void) {{\n{body}\nreturn 0;\n}}\n")
    built = subprocess.run(
        ["cc", "-Wall", "-Werror", "-o", program, source],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        pytest.fail(f"cc:\n{built.stderr}", pytrace=False)
    done = subprocess.run([program], input=stdin, capture_output=True, check=True)
    return done.stdout.decode().splitlines()


def values(names: Iterable[str], folder: Path) -> dict[str, int]:
    """Each C expression's value as 64 bits."""
    names = list(names)
    body = "\n".join(f'printf("%llu\\n", (unsigned long long)({name}));' for name in names)
    return dict(zip(names, map(int, c_output(body, folder)), strict=True))


def known_to_header() -> set[str]:
    """Every word that the compiler sees in the headers, macros among them."""
    words: set[str] = set()
    for options in (["-E"], ["-E", "-dM"]):
        done = subprocess.run(
            ["cc", *options, "-x", "c", "-"],
            input=INCLUDES,
            capture_output=True,
            text=True,
            check=True,
        )
        words |= set(re.findall(r"\w+", done.stdout))
    return words


def present(names: Iterable[str]) -> list[str]:
    """Those that this machine's header has; one that it lacks must be listed as newer."""
    names, known = list(names), known_to_header()
    absent = {name for name in names if name not in known}
    assert absent <= NEWER.keys(), "misspelt, or newer than this header: then say since when"
    return [name for name in names if name not in absent]


@pytest.mark.parametrize("ours", PREFIXES, ids=lambda ours: ours.__name__)
def test_a_constant_is_the_header_s(
    ours: type[enum.IntEnum] | type[enum.IntFlag], tmp_path: Path
) -> None:
    mine = {PREFIXES[ours] + name: int(member) for name, member in ours.__members__.items()}
    theirs = values(present(mine), tmp_path)
    assert theirs == {name: mine[name] for name in theirs}


def test_a_constant_that_stands_alone_is_the_header_s(tmp_path: Path) -> None:
    assert values(ALONE, tmp_path) == ALONE


def test_a_flag_is_the_bit_of_the_header_s_field(tmp_path: Path) -> None:
    # By __members__: a second name for the same bit would not be met otherwise.
    flags = {name.lower(): int(flag) for name, flag in abi.Flag.__members__.items()}
    mine = {name: bit for name, bit in flags.items() if name not in OUR_FLAGS}
    names = present([*mine, "precise_ip"])
    # The word follows read_format in the struct.
    body = "unsigned long long word; struct perf_event_attr attr;\n" + "\n".join(
        f"memset(&attr, 0, sizeof attr); attr.{name} = 1;\n"
        "memcpy(&word, &attr.read_format + 1, sizeof word);\n"
        'printf("%llu\\n", word);'
        for name in names
    )
    theirs = dict(zip(names, map(int, c_output(body, tmp_path)), strict=True))
    assert theirs.pop("precise_ip") == 1 << 15
    assert theirs == {name: mine[name] for name in theirs}


def test_a_packed_attr_has_each_field_where_the_header_has_it(tmp_path: Path) -> None:
    # A value of its own for each field; small, so that it fits into the 16 bits of the narrowest.
    mine = {field.name: 3 + number for number, field in enumerate(fields(abi.Attr))}
    mine["flags"], mine["precise_ip"] = int(abi.Flag.DISABLED), 2
    packed = abi.Attr(**mine).pack()  # type: ignore[arg-type]  # flags are integers here
    mine |= {"disabled": 1, "size": abi.ATTR_SIZE}
    del mine["flags"]
    names = present(mine)
    body = (
        "struct perf_event_attr attr;\n"
        "if (fread(&attr, sizeof attr, 1, stdin) != 1) return 1;\n"
        + "\n".join(f'printf("%llu\\n", (unsigned long long)attr.{name});' for name in names)
    )
    theirs = dict(zip(names, map(int, c_output(body, tmp_path, packed)), strict=True))
    assert theirs == {name: mine[name] for name in names}


def test_unions_have_the_names_that_the_attr_s_docstring_gives(tmp_path: Path) -> None:
    same = {
        "sample_period": ["sample_freq"],
        "wakeup_events": ["wakeup_watermark"],
        "config1": ["bp_addr", "kprobe_func", "uprobe_path"],
        "config2": ["bp_len", "kprobe_addr", "probe_offset"],
    }
    at = "offsetof(struct perf_event_attr, {})".format
    offsets = values([at(name) for pair in same.items() for name in (pair[0], *pair[1])], tmp_path)
    for name, others in same.items():
        assert {offsets[at(other)] for other in others} == {offsets[at(name)]}


def test_the_system_call_s_number_is_the_header_s(tmp_path: Path) -> None:
    number = syscalls._PERF_EVENT_OPEN[platform.machine()]
    assert values(["SYS_perf_event_open"], tmp_path) == {"SYS_perf_event_open": number}
    numbers = seccomp.MACHINES[platform.machine()][0]
    assert number == numbers.perf_event_open
    assert values(["SYS_ioctl"], tmp_path) == {"SYS_ioctl": numbers.ioctl}
