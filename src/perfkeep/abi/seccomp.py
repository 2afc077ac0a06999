"""<linux/seccomp.h>, <linux/filter.h>, <linux/audit.h>: filters that hand a call to a supervisor.

Values are those of Linux 6.18; tests compare them with the headers through the C compiler.
Nothing here makes a system call.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple


class AuditArch(enum.IntEnum):
    """AUDIT_ARCH_*: whose numbers the system calls have."""

    I386 = 0x40000003
    X86_64 = 0xC000003E
    AARCH64 = 0xC00000B7


class FilterFlag(enum.IntFlag):
    """Flags of SECCOMP_SET_MODE_FILTER."""

    #: No mitigation of speculation for the program's sake: the filter is no sandbox.
    SPEC_ALLOW = 1 << 2
    NEW_LISTENER = 1 << 3
    #: Once the supervisor has a call, only a fatal signal takes it away again (Linux 5.19).
    WAIT_KILLABLE_RECV = 1 << 5


class Ret(enum.IntEnum):
    """What a filter says of a call."""

    USER_NOTIF = 0x7FC00000
    ALLOW = 0x7FFF0000


class AddFd(enum.IntFlag):
    """Flags of SECCOMP_IOCTL_NOTIF_ADDFD."""

    #: Give the fd and answer the call with its number, in one step (Linux 5.14).
    SEND = 1 << 1


SECCOMP_SET_MODE_FILTER = 1

SECCOMP_IOCTL_NOTIF_RECV = 0xC0502100
SECCOMP_IOCTL_NOTIF_SEND = 0xC0182101
SECCOMP_IOCTL_NOTIF_ID_VALID = 0x40082102
SECCOMP_IOCTL_NOTIF_ADDFD = 0x40182103
#: Linux 6.6; its argument is the flags, not a pointer.
SECCOMP_IOCTL_NOTIF_SET_FLAGS = 0x40082104
SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP = 1

SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1

#: struct seccomp_notif: id, pid, flags; nr, arch, instruction_pointer, args[6].
NOTIF = struct.Struct("=QIIiIQ6Q")
#: struct seccomp_notif_resp: id, val, error, flags.
NOTIF_RESP = struct.Struct("=QqiI")
#: struct seccomp_notif_addfd: id, flags, srcfd, newfd, newfd_flags.
NOTIF_ADDFD = struct.Struct("=QIIII")

#: Offsets in struct seccomp_data.
DATA_NR, DATA_ARCH, DATA_ARGS = 0, 4, 16


class Bpf(enum.IntEnum):
    """The instructions of classic BPF that a filter of ours needs, class and mode in one."""

    LD_W_ABS = 0x20
    JEQ_K = 0x15
    RET_K = 0x06


#: struct sock_filter: code, jt, jf, k.
SOCK_FILTER = struct.Struct("=HBBI")


class Numbers(NamedTuple):
    """Of the system calls that a filter looks at. <asm/unistd.h>"""

    arch: AuditArch
    perf_event_open: int
    ioctl: int


X86_64 = Numbers(AuditArch.X86_64, perf_event_open=298, ioctl=16)
I386 = Numbers(AuditArch.I386, perf_event_open=336, ioctl=54)
AARCH64 = Numbers(AuditArch.AARCH64, perf_event_open=241, ioctl=29)

#: By platform.machine(): the ABIs whose programs run on it. A 32-bit ARM program on aarch64 is
#: not among them: its calls go to the kernel as they are.
MACHINES = {"x86_64": (X86_64, I386), "aarch64": (AARCH64,)}
