"""<linux/seccomp.h>, <linux/filter.h>, <linux/audit.h>: filters that hand a call to a supervisor,
and those that refuse it; <linux/capability.h> and <linux/prctl.h>: the rest of a sandbox.

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

    #: No mitigation of speculation: that is for programs which run what others give them.
    SPEC_ALLOW = 1 << 2
    NEW_LISTENER = 1 << 3
    #: Once the supervisor has a call, only a fatal signal takes it away again (Linux 5.19).
    WAIT_KILLABLE_RECV = 1 << 5


class Ret(enum.IntEnum):
    """What a filter says of a call."""

    #: The call fails; the errno is in the low 16 bits.
    ERRNO = 0x00050000
    USER_NOTIF = 0x7FC00000
    ALLOW = 0x7FFF0000


class AddFd(enum.IntFlag):
    """Flags of SECCOMP_IOCTL_NOTIF_ADDFD."""

    #: Give the fd and answer the call with its number, in one step (Linux 5.14).
    SEND = 1 << 1


class Capability(enum.IntEnum):
    """CAP_*: bits of the sets that a process has."""

    CHOWN = 0
    DAC_READ_SEARCH = 2
    FOWNER = 3
    SETGID = 6
    SETUID = 7
    IPC_LOCK = 14
    SYS_ADMIN = 21
    #: Linux 5.8.
    PERFMON = 38


class Prctl(enum.IntEnum):
    """PR_*: options of prctl(2) that change nothing but the process that calls it."""

    GET_DUMPABLE = 3
    SET_DUMPABLE = 4
    SET_NAME = 15
    GET_NAME = 16
    GET_SECCOMP = 21
    CAPBSET_READ = 23
    CAPBSET_DROP = 24
    SET_NO_NEW_PRIVS = 38
    GET_NO_NEW_PRIVS = 39
    CAP_AMBIENT = 47
    SET_TAGGED_ADDR_CTRL = 55
    GET_TAGGED_ADDR_CTRL = 56
    GET_SHADOW_STACK_STATUS = 74
    SET_SHADOW_STACK_STATUS = 75
    LOCK_SHADOW_STACK_STATUS = 76
    GET_AUXV = 0x41555856
    SET_VMA = 0x53564D41


PR_CAP_AMBIENT_IS_SET = 1

#: capget(2), capset(2): version, pid; then effective, permitted, inheritable, low half and high.
CAPABILITY_VERSION_3 = 0x20080522
CAP_HEADER = struct.Struct("=Ii")
CAP_DATA = struct.Struct("=6I")

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2

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
    AND_K = 0x54
    JEQ_K = 0x15
    JGT_K = 0x25
    JGE_K = 0x35
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

#: The system calls that a daemon may make: name, number. Of <asm/unistd_64.h>.
_X86_64_CALLS = """
read 0  write 1  open 2  close 3  stat 4  fstat 5  lstat 6  poll 7  lseek 8  mmap 9  mprotect 10
munmap 11  brk 12  rt_sigaction 13  rt_sigprocmask 14  rt_sigreturn 15  ioctl 16  pread64 17
pwrite64 18  readv 19  writev 20  access 21  pipe 22  select 23  sched_yield 24  mremap 25
msync 26  mincore 27  madvise 28  dup 32  dup2 33  pause 34  nanosleep 35  getitimer 36  alarm 37
setitimer 38  getpid 39  sendfile 40  socket 41  connect 42  accept 43  sendto 44  recvfrom 45
sendmsg 46  recvmsg 47  shutdown 48  bind 49  listen 50  getsockname 51  getpeername 52
socketpair 53  setsockopt 54  getsockopt 55  clone 56  fork 57  vfork 58  execve 59  exit 60
wait4 61  kill 62  uname 63  fcntl 72  flock 73  fsync 74  fdatasync 75  truncate 76  ftruncate 77
getdents 78  getcwd 79  chdir 80  fchdir 81  rename 82  mkdir 83  rmdir 84  creat 85  unlink 87
readlink 89  chmod 90  fchmod 91  chown 92  fchown 93  lchown 94  umask 95  gettimeofday 96
getrlimit 97  getrusage 98  sysinfo 99  times 100  getuid 102  getgid 104  setuid 105  setgid 106
geteuid 107  getegid 108  setpgid 109  getppid 110  getpgrp 111  setsid 112  setreuid 113
setregid 114  getgroups 115  setgroups 116  setresuid 117  getresuid 118  setresgid 119
getresgid 120  getpgid 121  setfsuid 122  setfsgid 123  getsid 124  capget 125  capset 126
rt_sigpending 127  rt_sigtimedwait 128  rt_sigsuspend 130  sigaltstack 131  utime 132  statfs 137
fstatfs 138  getpriority 140  sched_getparam 143  sched_getscheduler 145  prctl 157
arch_prctl 158  setrlimit 160  gettid 186  time 201  futex 202  sched_getaffinity 204
epoll_create 213  getdents64 217  set_tid_address 218  restart_syscall 219  fadvise64 221
clock_gettime 228  clock_getres 229  clock_nanosleep 230  exit_group 231  epoll_wait 232
epoll_ctl 233  utimes 235  waitid 247  inotify_init 253  inotify_add_watch 254
inotify_rm_watch 255  openat 257  mkdirat 258  fchownat 260  futimesat 261  newfstatat 262
unlinkat 263  renameat 264  readlinkat 267  fchmodat 268  faccessat 269  pselect6 270  ppoll 271
set_robust_list 273  get_robust_list 274  sync_file_range 277  utimensat 280  epoll_pwait 281
signalfd 282  timerfd_create 283  eventfd 284  fallocate 285  timerfd_settime 286
timerfd_gettime 287  accept4 288  signalfd4 289  eventfd2 290  epoll_create1 291  dup3 292
pipe2 293  inotify_init1 294  preadv 295  pwritev 296  perf_event_open 298  prlimit64 302
syncfs 306  getcpu 309  sched_getattr 315  renameat2 316  seccomp 317  getrandom 318
memfd_create 319  membarrier 324  copy_file_range 326  preadv2 327  pwritev2 328  statx 332
rseq 334  pidfd_open 434  close_range 436  openat2 437  faccessat2 439  epoll_pwait2 441
futex_waitv 449  fchmodat2 452  map_shadow_stack 453  futex_wake 454  futex_wait 455
futex_requeue 456  mseal 462
"""
#: Of <asm-generic/unistd.h>, which has one spelling of each.
_AARCH64_CALLS = """
getcwd 17  eventfd2 19  epoll_create1 20  epoll_ctl 21  epoll_pwait 22  dup 23  dup3 24  fcntl 25
inotify_init1 26  inotify_add_watch 27  inotify_rm_watch 28  ioctl 29  flock 32  mkdirat 34
unlinkat 35  renameat 38  statfs 43  fstatfs 44  truncate 45  ftruncate 46  fallocate 47
faccessat 48  chdir 49  fchdir 50  fchmod 52  fchmodat 53  fchownat 54  fchown 55  openat 56
close 57  pipe2 59  getdents64 61  lseek 62  read 63  write 64  readv 65  writev 66  pread64 67
pwrite64 68  preadv 69  pwritev 70  sendfile 71  pselect6 72  ppoll 73  signalfd4 74
readlinkat 78  newfstatat 79  fstat 80  fsync 82  fdatasync 83  sync_file_range 84
timerfd_create 85  timerfd_settime 86  timerfd_gettime 87  utimensat 88  capget 90  capset 91
exit 93  exit_group 94  waitid 95  set_tid_address 96  futex 98  set_robust_list 99
get_robust_list 100  nanosleep 101  getitimer 102  setitimer 103  clock_gettime 113
clock_getres 114  clock_nanosleep 115  sched_getscheduler 120  sched_getparam 121
sched_getaffinity 123  sched_yield 124  restart_syscall 128  kill 129  sigaltstack 132
rt_sigsuspend 133  rt_sigaction 134  rt_sigprocmask 135  rt_sigpending 136  rt_sigtimedwait 137
rt_sigreturn 139  getpriority 141  setregid 143  setgid 144  setreuid 145  setuid 146
setresuid 147  getresuid 148  setresgid 149  getresgid 150  setfsuid 151  setfsgid 152  times 153
setpgid 154  getpgid 155  getsid 156  setsid 157  getgroups 158  setgroups 159  uname 160
getrlimit 163  setrlimit 164  getrusage 165  umask 166  prctl 167  getcpu 168  gettimeofday 169
getpid 172  getppid 173  getuid 174  geteuid 175  getgid 176  getegid 177  gettid 178  sysinfo 179
socket 198  socketpair 199  bind 200  listen 201  accept 202  connect 203  getsockname 204
getpeername 205  sendto 206  recvfrom 207  setsockopt 208  getsockopt 209  shutdown 210
sendmsg 211  recvmsg 212  brk 214  munmap 215  mremap 216  clone 220  execve 221  mmap 222
fadvise64 223  mprotect 226  msync 227  mincore 232  madvise 233  perf_event_open 241  accept4 242
wait4 260  prlimit64 261  syncfs 267  sched_getattr 275  renameat2 276  seccomp 277  getrandom 278
memfd_create 279  membarrier 283  copy_file_range 285  preadv2 286  pwritev2 287  statx 291
rseq 293  pidfd_open 434  close_range 436  openat2 437  faccessat2 439  epoll_pwait2 441
futex_waitv 449  fchmodat2 452  map_shadow_stack 453  futex_wake 454  futex_wait 455
futex_requeue 456  mseal 462
"""


def system_calls(arch: AuditArch) -> dict[str, int]:
    """The numbers of the system calls that a daemon may make, by name.

    Raises:
        KeyError: an architecture whose numbers are not known.
    """
    words = {AuditArch.X86_64: _X86_64_CALLS, AuditArch.AARCH64: _AARCH64_CALLS}[arch].split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))
