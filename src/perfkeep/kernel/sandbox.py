"""The sandbox of the daemons: what broker, keeper and opener could do and never have to, they
cannot do.

The first broker of an instance enters, before it starts its keeper. fork(2) and execve(2) pass it
all on: keepers, openers and the brokers to come are born inside, and nobody gets out. So the
filter allows what any of the three needs, and a program that is inside already adds no layer.

A keeper does nothing for it. An execve(2) by root makes all that is permitted effective again,
and only capset(2) takes it away, which the standard library lacks; ctypes would cost each keeper
0.3 MB of its own and 2 to 4 ms (CPython 3.11). It is worth neither: what is permitted can be made
effective by whoever has taken the process over; that it is not protects one that is led to a
wrong path, and a keeper opens none.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterable
from typing import NamedTuple

from perfkeep.abi import seccomp as abi
from perfkeep.abi.seccomp import AuditArch, Bpf, Capability, Prctl, Ret

#: What a broker of root has in force.
EFFECTIVE = (
    # Rings beyond perf_event_mlock_kb. The keeper maps first, but it may die before the broker
    # has mapped.
    Capability.IPC_LOCK,
    # An entry of the sysfs view belongs to the owner of its recording.
    Capability.CHOWN,
)

#: What is there for whom a daemon starts: an execve(2) by root makes it effective.
PERMITTED = (
    *EFFECTIVE,
    # An opener becomes the user whose recording it is.
    Capability.SETUID,
    Capability.SETGID,
    # Opens events of all tasks, of CPUs and of cgroups, tracepoints, and events of others'
    # processes, whatever perf_event_paranoid says. In place of SYS_PTRACE, which nobody has: it
    # would open /proc/PID/mem.
    Capability.PERFMON,
    # Probes of programs since Linux 6.16 (ba677dbe77af), breakpoints in the kernel, and before 5.8
    # all that PERFMON is for now. What else it is good for, the filter refuses: mounts, namespaces,
    # bpf(2), keys, quotas, swap, the host's name.
    Capability.SYS_ADMIN,
    # Finds the program of a probe, or perfkeep itself, in a folder that only its owner may enter.
    Capability.DAC_READ_SEARCH,
)
# Not needed, by trial: SYS_RESOURCE (the limit of open files is raised before, and inherited),
# DAC_OVERRIDE and FOWNER (the instance's files are its own), SYS_PTRACE (/proc/PID/stat and cmdline
# are for everyone), KILL, NET_ADMIN, SYSLOG.

#: The calls that are allowed whatever their arguments. A call is here by one of two rules: strace
#: saw broker, keeper or opener make it (CPython 3.11 to 3.13, glibc); or it is another spelling of
#: such a call, which another libc, Python or kernel uses for the same end.
ALLOWED = (
    # Files: the code, socket, lock, log and state; /proc, /sys and tracefs, which are read.
    "read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 copy_file_range"
    " sendfile lseek close close_range open openat openat2 creat dup dup2 dup3 pipe pipe2 access"
    " faccessat faccessat2 readlink readlinkat stat lstat fstat newfstatat statx statfs fstatfs"
    " getdents getdents64 flock fadvise64 fsync fdatasync sync_file_range syncfs truncate"
    " ftruncate fallocate rename renameat renameat2 unlink unlinkat mkdir mkdirat rmdir chmod"
    " fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat"
    " umask chdir fchdir getcwd memfd_create",
    # What an opener is for.
    "perf_event_open",
    # Waiting.
    "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait"
    " epoll_pwait2 eventfd eventfd2 signalfd signalfd4 pidfd_open inotify_init inotify_init1"
    " inotify_add_watch inotify_rm_watch",
    # A socket, once there is one.
    "bind listen accept accept4 connect sendto recvfrom sendmsg recvmsg shutdown getsockname"
    " getpeername getsockopt setsockopt",
    # Memory and threads.
    "brk munmap mremap madvise mincore msync mseal map_shadow_stack membarrier futex futex_waitv"
    " futex_wake futex_wait futex_requeue set_tid_address set_robust_list get_robust_list rseq"
    " arch_prctl getcpu gettid sched_yield sched_getaffinity sched_getparam sched_getscheduler"
    " sched_getattr",
    # Processes. Sending signals to others is not among them: no daemon does.
    "fork vfork execve wait4 waitid exit exit_group getpid getppid getpgid getpgrp setpgid getsid"
    " setsid getpriority getrlimit setrlimit getrusage times sysinfo uname getrandom"
    " rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend"
    " sigaltstack pause restart_syscall",
    # Clocks, which nobody sets.
    "clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time getitimer setitimer"
    " alarm timerfd_create timerfd_settime timerfd_gettime",
    # Becoming the owner of a recording; a sandbox that is entered again.
    "getuid geteuid getgid getegid getgroups getresuid getresgid setuid setgid setgroups setreuid"
    " setregid setresuid setresgid setfsuid setfsgid capget capset",
)


class Fits(NamedTuple):
    """An argument, the bits of it that count, and the values that they may have.

    Only the low 32 bits of an argument are looked at, which is all that the kernel takes of those
    that are named below.
    """

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF


class Checked(NamedTuple):
    """A call that depends on its arguments: one of `ways` must fit, all tests of it, or the call
    fails with `error`."""

    error: int
    ways: tuple[tuple[Fits, ...], ...]


_NETLINK_KOBJECT_UEVENT = 15
# NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_CLONE_NEW = 0x7E020000
_PROT_WRITE, _PROT_EXEC = 2, 4
_NOT_WRITE_AND_EXEC = Fits(2, (0, _PROT_WRITE, _PROT_EXEC), _PROT_WRITE | _PROT_EXEC)
_PERF = ord("$") << 8
# FIONREAD, FIONBIO, FIONCLEX, FIOCLEX; TCGETS, TCGETS2 and TIOCGWINSZ, by which a libc knows a
# terminal.
_PLAIN_IOCTLS = (0x541B, 0x5421, 0x5450, 0x5451, 0x5401, 0x802C542A, 0x5413)

CHECKED = {
    # What the kernel says of a family that it was built without.
    "socket": Checked(
        errno.EAFNOSUPPORT,
        (
            (Fits(0, (socket.AF_UNIX,)),),
            (Fits(0, (socket.AF_NETLINK,)), Fits(2, (_NETLINK_KOBJECT_UEVENT,))),
        ),
    ),
    "socketpair": Checked(errno.EAFNOSUPPORT, ((Fits(0, (socket.AF_UNIX,)),),)),
    # A user namespace would give back every capability, inside of it. Of clone3 a filter cannot
    # see the flags, so it is not allowed, and every libc goes on with clone.
    "clone": Checked(errno.EPERM, ((Fits(0, (0,), _CLONE_NEW),),)),
    "mmap": Checked(errno.EPERM, ((_NOT_WRITE_AND_EXEC,),)),
    "mprotect": Checked(errno.EPERM, ((_NOT_WRITE_AND_EXEC,),)),
    # Of perf events all commands. A terminal, whose commands could type for somebody, is only
    # recognised.
    "ioctl": Checked(errno.ENOTTY, ((Fits(1, (_PERF,), 0xFF00),), (Fits(1, _PLAIN_IOCTLS),))),
    # 0 to 7: F_DUPFD to F_SETLKW. OFD locks. All of Linux's own from 1024 on: F_DUPFD_CLOEXEC,
    # seals. Not F_SETOWN and F_SETSIG, which send signals to others.
    "fcntl": Checked(
        errno.EINVAL,
        (
            (Fits(1, (0,), 0xFFFFFFF8),),
            (Fits(1, (fcntl.F_OFD_GETLK, fcntl.F_OFD_SETLK, fcntl.F_OFD_SETLKW)),),
            (Fits(1, (1024,), 0xFFFFFC00),),
        ),
    ),
    "prctl": Checked(errno.EINVAL, ((Fits(0, tuple(Prctl)),),)),
    # One's own limits only.
    "prlimit64": Checked(errno.EPERM, ((Fits(0, (0,)),),)),
    # Whether a process is there, and no more.
    "kill": Checked(errno.EPERM, ((Fits(1, (0,)),),)),
    # How a program learns that it is inside: the kernel itself never answers so.
    "seccomp": Checked(errno.EALREADY, ()),
}

_MACHINES = {"x86_64": AuditArch.X86_64, "aarch64": AuditArch.AARCH64}

Code = list[tuple[Bpf, int, int, int]]


# --- the filter (pure) ----------------------------------------------------------------------------


def program(arch: AuditArch) -> bytes:
    """The filter: struct sock_filter, one after another.

    Calls of another ABI (i386 and x32 on x86_64), and all that are not named above, fail with
    ENOSYS and not with EPERM: it is what an older kernel says of a call that it lacks, so a libc or
    a Python that tries something new goes on with something old. EPERM ends the attempt.
    """
    calls = abi.system_calls(arch)
    refuse = (Bpf.RET_K, 0, 0, Ret.ERRNO | errno.ENOSYS)
    code: Code = [
        (Bpf.LD_W_ABS, 0, 0, abi.DATA_ARCH),
        (Bpf.JEQ_K, 1, 0, arch),
        refuse,
        (Bpf.LD_W_ABS, 0, 0, abi.DATA_NR),
    ]
    for name, checked in CHECKED.items():
        block = _arguments(checked)
        code += [(Bpf.JEQ_K, 0, len(block), calls[name]), *block]
    names = " ".join(ALLOWED).split()
    for first, last in _ranges(calls[name] for name in names if name in calls):
        code += [(Bpf.JGT_K, 3, 0, last), (Bpf.JGE_K, 0, 1, first), (Bpf.RET_K, 0, 0, Ret.ALLOW)]
        code.append(refuse)  # below this range, and above the one before it
    code.append(refuse)
    return b"".join(abi.SOCK_FILTER.pack(*instruction) for instruction in code)


def _arguments(checked: Checked) -> Code:
    """From where the call is known to the verdict."""
    code: Code = []
    for way in checked.ways:
        block: Code = [(Bpf.RET_K, 0, 0, Ret.ALLOW)]
        for test in reversed(way):
            count, beyond = len(test.values), len(block)
            block = [
                (Bpf.LD_W_ABS, 0, 0, abi.DATA_ARGS + 8 * test.argument),
                (Bpf.AND_K, 0, 0, test.mask),
                # Jumps are counted from the next instruction; the last value that does not fit
                # leads to the next way.
                *(
                    (Bpf.JEQ_K, count - 1 - i, beyond if i == count - 1 else 0, value)
                    for i, value in enumerate(test.values)
                ),
                *block,
            ]
        code += block
    return [*code, (Bpf.RET_K, 0, 0, Ret.ERRNO | checked.error)]


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """(5, 1, 2, 3) → (1, 3), (5, 5)."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


# --- entering -------------------------------------------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)


class Sandbox(NamedTuple):
    """What holds.

    Attributes:
        no_new_privs: no execve(2) gives more than there was.
        filter: of system calls.
        effective, permitted: the capabilities that are left, by their names.
        problem: why there is no filter.
    """

    no_new_privs: bool
    filter: bool
    effective: tuple[str, ...]
    permitted: tuple[str, ...]
    problem: str = ""

    def __str__(self) -> str:
        later = [name for name in self.permitted if name not in self.effective]
        words = [
            f"{'' if self.no_new_privs else 'no '}no_new_privs",
            "system calls filtered" if self.filter else f"no filter ({self.problem})",
            f"capabilities {' '.join(self.effective) or 'none'}",
        ]
        return ", ".join(words) + (f", for children {' '.join(later)}" if later else "")


def enter(paths: Iterable[str] = ()) -> Sandbox:
    """Give up what is not needed; for this process, before it starts a thread, and for all that it
    will start. What cannot be given up is said, and nothing fails.

    Args:
        paths: what this process must be able to reach afterwards, beside its own code.
    """
    no_new_privs = _libc.prctl(Prctl.SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    effective, permitted = _drop_capabilities([*paths, *_own_code()])
    problem = _install_filter()
    return Sandbox(no_new_privs, not problem, _names(effective), _names(permitted), problem)


def _install_filter() -> str:
    """Why there is no filter; "": there is."""
    machine = os.uname().machine
    arch = _MACHINES.get(machine)
    # A 32-bit Python on such a machine makes calls of another ABI.
    if arch is None or sys.maxsize < 1 << 32 or sys.byteorder != "little":
        return f"the system calls of {machine} are not known"
    number = abi.system_calls(arch)["seccomp"]
    allow = struct.pack("=I", Ret.ALLOW)
    if not _libc.syscall(number, abi.SECCOMP_GET_ACTION_AVAIL, 0, allow):
        code = program(arch)
        filters = ctypes.create_string_buffer(code, len(code))
        # struct sock_fprog; native alignment puts the pointer where the kernel looks for it.
        header = struct.pack("@HP", len(code) // abi.SOCK_FILTER.size, ctypes.addressof(filters))
        flags = int(abi.FilterFlag.SPEC_ALLOW)
        if not _libc.syscall(number, abi.SECCOMP_SET_MODE_FILTER, flags, header):
            return ""
    found = ctypes.get_errno()
    return "" if found == errno.EALREADY else f"seccomp: {os.strerror(found)}"


# --- capabilities ---------------------------------------------------------------------------------


def _drop_capabilities(paths: list[str]) -> tuple[int, int]:
    """Keep what is needed of each set; gives those that are effective and permitted then.

    Of a user who has capabilities by the ambient set (systemd's AmbientCapabilities=), those that
    are needed stay there: nothing else brings them to a keeper.
    """
    _, permitted, _ = _capabilities()
    kept = permitted & _bits(PERMITTED)
    for number in range(64):
        # -1: this kernel has no more. Only who has SETPCAP may drop any; for the others
        # no_new_privs does as much.
        if not kept >> number & 1 and _libc.prctl(Prctl.CAPBSET_READ, number, 0, 0, 0) == 1:
            _libc.prctl(Prctl.CAPBSET_DROP, number, 0, 0, 0)
    # What is neither inheritable nor permitted leaves the ambient set as well.
    inheritable = sum(
        1 << number for number in PERMITTED if kept >> number & 1 and _ambient(number)
    )
    effective = kept & _bits(EFFECTIVE)
    _set_capabilities(effective, kept, inheritable)
    search = kept & 1 << Capability.DAC_READ_SEARCH
    if search and not all(_reachable(path) for path in paths):
        _set_capabilities(effective | search, kept, inheritable)
    effective, kept, _ = _capabilities()
    return effective, kept


def _own_code() -> list[str]:
    """Of which parts may still be imported, and others started."""
    return [sys.executable, __file__, os.__file__]


def _reachable(path: str) -> bool:
    """For the capabilities in force; access(2) would ask with those that are permitted."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except PermissionError:
        return False
    except OSError:
        pass  # it is not there yet, and will be made by us
    return True


def _capabilities() -> tuple[int, int, int]:
    """Effective, permitted, inheritable, a bit for each."""
    header = abi.CAP_HEADER.pack(abi.CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(abi.CAP_DATA.size)
    if _libc.capget(header, data):
        return 0, 0, 0
    low, high = (abi.CAP_DATA.unpack(data.raw)[half : half + 3] for half in (0, 3))
    effective, permitted, inheritable = (a | b << 32 for a, b in zip(low, high, strict=True))
    return effective, permitted, inheritable


def _set_capabilities(*sets: int) -> None:
    """Effective, permitted, inheritable. Less than before can always be had."""
    header = abi.CAP_HEADER.pack(abi.CAPABILITY_VERSION_3, 0)
    low, high = ([each >> shift & 0xFFFFFFFF for each in sets] for shift in (0, 32))
    _libc.capset(header, abi.CAP_DATA.pack(*low, *high))


def _ambient(number: int) -> bool:
    return bool(_libc.prctl(Prctl.CAP_AMBIENT, abi.PR_CAP_AMBIENT_IS_SET, number, 0, 0) == 1)


def _bits(some: Iterable[Capability]) -> int:
    return sum(1 << number for number in some)


def _names(bits: int) -> tuple[str, ...]:
    known = {one.value: one.name.lower() for one in Capability}
    return tuple(known.get(one, str(one)) for one in range(64) if bits >> one & 1)
