"""The filter: which system calls go to the supervisor. Pure.

perf_event_open(2), and those ioctl(2)s whose command is one of `TRAPPED`. A filter sees numbers
and not what pointers point at, so whether a call is about a persistent event is found out later.
All other calls are allowed whatever their arguments, which the kernel notices: it does not even
run the filter for them.
"""

from __future__ import annotations

from perfkeep.abi.perf_event import PERF_EVENT_IOC_CLAIM, PERF_EVENT_IOC_UNCLAIM, Ioctl
from perfkeep.abi.seccomp import (
    DATA_ARCH,
    DATA_ARGS,
    DATA_NR,
    MACHINES,
    SOCK_FILTER,
    Bpf,
    Numbers,
    Ret,
)
from perfkeep.errors import KernelRefused

#: The ioctls that persistence gives a meaning of its own; the same numbers in all ABIs.
TRAPPED = (
    PERF_EVENT_IOC_UNCLAIM,
    PERF_EVENT_IOC_CLAIM,
    Ioctl.DISABLE,
    Ioctl.PAUSE_OUTPUT,
    Ioctl.SET_OUTPUT,
)

# The low half of an argument, on the little-endian machines that there are: the kernel takes an
# ioctl's command as 32 bits.
_COMMAND = DATA_ARGS + 8


def abis(machine: str) -> tuple[Numbers, ...]:
    """The ABIs of a machine's programs.

    Raises:
        KernelRefused: ENOSYS: a machine whose numbers are not known.
    """
    found = MACHINES.get(machine)
    if found is None:
        import errno

        raise KernelRefused(
            errno.ENOSYS,
            f"perfkeep exec knows the system calls of {' and '.join(MACHINES)}, not those of {machine}",
            hint="programs that use the library or the command line need no exec",
        )
    return found


def program(machine: str) -> bytes:
    """The filter for a machine: struct sock_filter, one after another.

    Calls of any other ABI (x32, 32-bit ARM) are allowed: the kernel answers them.

    Raises:
        KernelRefused: ENOSYS.
    """
    code: list[tuple[Bpf, int, int, int]] = [(Bpf.LD_W_ABS, 0, 0, DATA_ARCH)]
    for numbers in abis(machine):
        block = _one_abi(numbers)
        code += [(Bpf.JEQ_K, 0, len(block), numbers.arch), *block]
    code.append((Bpf.RET_K, 0, 0, Ret.ALLOW))
    return b"".join(SOCK_FILTER.pack(*instruction) for instruction in code)


def _one_abi(numbers: Numbers) -> list[tuple[Bpf, int, int, int]]:
    """From where the architecture is known to the verdict."""
    count = len(TRAPPED)
    # Jumps are counted from the next instruction; the last two are ALLOW and USER_NOTIF.
    return [
        (Bpf.LD_W_ABS, 0, 0, DATA_NR),
        (Bpf.JEQ_K, count + 3, 0, numbers.perf_event_open),
        (Bpf.JEQ_K, 0, count + 1, numbers.ioctl),
        (Bpf.LD_W_ABS, 0, 0, _COMMAND),
        *((Bpf.JEQ_K, count - index, 0, command) for index, command in enumerate(TRAPPED)),
        (Bpf.RET_K, 0, 0, Ret.ALLOW),
        (Bpf.RET_K, 0, 0, Ret.USER_NOTIF),
    ]
