"""The sandbox: what a daemon needs works inside, and what it does not need is refused.

A child of the test enters and tries.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import mmap
import os
import platform
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perfkeep.abi.perf_event import Attr, Software, Type
from perfkeep.abi.seccomp import AuditArch, system_calls
from perfkeep.kernel import sandbox
from perfkeep.kernel.inotify import watch_deletions
from perfkeep.kernel.syscalls import perf_event_open
from perfkeep.kernel.uevents import watch_cpus
from perfkeep.testing.requirements import compiler, i386, requires
from support.nobody import NOBODY
from support.sandbox import Inside

HERE = {"x86_64": AuditArch.X86_64, "aarch64": AuditArch.AARCH64}.get(platform.machine())

known_machine = pytest.mark.skipif(HERE is None, reason="no filter for this machine")


libc = ctypes.CDLL(None, use_errno=True)


def call(number: int, *args: int) -> int:
    """syscall(2) with 64-bit arguments.

    Raises:
        OSError: what the kernel said.
    """
    result = int(libc.syscall(number, *(ctypes.c_long(arg) for arg in args)))
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


#: One of each family that a daemon has no use for.
FORBIDDEN = """
    ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd mount umount2
    move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr pivot_root chroot bpf
    kexec_load kexec_file_load init_module finit_module delete_module add_key request_key
    keyctl userfaultfd io_uring_setup io_uring_enter io_uring_register open_by_handle_at
    name_to_handle_at unshare setns clone3 execveat reboot swapon swapoff settimeofday
    clock_settime clock_adjtime adjtimex sethostname setdomainname acct quotactl syslog
    personality fanotify_init mknodat linkat setxattr vmsplice splice tkill tgkill
    rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal shmget semget msgget mq_open
    memfd_secret pkey_mprotect remap_file_pages modify_ldt iopl ioperm
"""


@pytest.fixture(scope="module")
def numbers() -> dict[str, int]:
    """Of every system call of this machine, by the header."""
    done = subprocess.run(
        ["cc", "-E", "-dM", "-x", "c", "-"],
        input="#include <asm/unistd.h>",
        capture_output=True,
        text=True,
        check=True,
    )
    return {n: int(v) for n, v in re.findall(r"^#define __NR_(\w+) (\d+)$", done.stdout, re.M)}


@known_machine
@requires(compiler)
@pytest.mark.parametrize("name", FORBIDDEN.split())
def test_a_daemon_cannot(name: str, numbers: dict[str, int], inside: Inside) -> None:
    if name not in numbers:
        pytest.skip(f"this machine has no {name}")
    # With arguments that no kernel takes, should it get there after all.
    assert inside(lambda: call(numbers[name], *[-1] * 6)) == "ENOSYS"


def new_user_namespace() -> None:
    """clone(2) with CLONE_NEWUSER."""
    assert HERE is not None
    if not call(system_calls(HERE)["clone"], 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0):
        os._exit(0)


def command(fd: int, number: int) -> None:
    fcntl.ioctl(fd, number, b"x" * 64)


def make_executable() -> None:
    with mmap.mmap(-1, 4096) as memory:
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        if libc.mprotect(ctypes.c_void_p(address), 4096, mmap.PROT_READ | 2 | 4):
            raise OSError(ctypes.get_errno(), "mprotect")


REFUSALS: dict[str, tuple[Callable[[], object], str]] = {
    "an internet socket": (lambda: socket.socket(socket.AF_INET), "EAFNOSUPPORT"),
    "an IPv6 socket": (lambda: socket.socket(socket.AF_INET6), "EAFNOSUPPORT"),
    "a packet socket": (lambda: socket.socket(socket.AF_PACKET), "EAFNOSUPPORT"),
    "a socket of a virtual machine": (lambda: socket.socket(40), "EAFNOSUPPORT"),
    "routes": (lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0), "EAFNOSUPPORT"),
    "audit": (lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9), "EAFNOSUPPORT"),
    "another pair": (lambda: socket.socketpair(socket.AF_INET), "EAFNOSUPPORT"),
    "a user namespace": (new_user_namespace, "EPERM"),
    "writable code": (lambda: mmap.mmap(-1, 4096, prot=1 | 2 | 4), "EPERM"),
    "code made writable": (make_executable, "EPERM"),
    "an ioctl of files": (lambda: command(os.open(__file__, 0), 0x5460), "ENOTTY"),  # FIOQSIZE
    "SIGIO for others": (lambda: fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid()), "EINVAL"),
    "another signal for it": (lambda: fcntl.fcntl(0, fcntl.F_SETSIG, 9), "EINVAL"),
    "a signal from its parent": (lambda: call_prctl(1, 9), "EINVAL"),  # PR_SET_PDEATHSIG
    "another seccomp": (lambda: call_prctl(22, 1), "EINVAL"),  # PR_SET_SECCOMP
    "limits of others": (
        lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE),
        "EPERM",
    ),
    "a signal for its parent": (lambda: os.kill(os.getppid(), signal.SIGCONT), "EPERM"),
    "a signal for everyone": (lambda: os.kill(-1, signal.SIGCONT), "EPERM"),
}


def call_prctl(*args: int) -> None:
    if libc.prctl(*(ctypes.c_long(arg) for arg in [*args, 0, 0, 0, 0][:5])) < 0:
        raise OSError(ctypes.get_errno(), "prctl")


@known_machine
@pytest.mark.parametrize("what", REFUSALS)
def test_arguments_that_no_daemon_uses_are_refused(what: str, inside: Inside) -> None:
    act, expected = REFUSALS[what]
    assert inside(act) == expected


@known_machine
def test_a_terminal_is_recognised_but_nobody_types_for_its_user(inside: Inside) -> None:
    ours, theirs = os.openpty()
    try:
        assert inside(lambda: os.isatty(theirs)) is True
        assert inside(lambda: command(theirs, 0x5412)) == "ENOTTY"  # TIOCSTI
    finally:
        os.close(ours)
        os.close(theirs)


INT_80 = """
int main(void) {
    int got;
    __asm__ volatile("int $0x80" : "=a"(got) : "a"(20) : "memory"); /* getpid of i386 */
    return got == -38 ? 38 : got > 0;
}
"""


@requires(compiler, i386)
def test_calls_of_i386_are_refused(tmp_path: Path, inside: Inside) -> None:
    """A program of 64 bits may make them as well."""
    program = tmp_path / "int80"
    build = ["cc", "-x", "c", "-o", str(program), "-"]
    subprocess.run(build, input=INT_80, text=True, check=True)
    assert subprocess.run([program], check=False).returncode == 1
    assert inside(lambda: subprocess.run([program], check=False).returncode) == errno.ENOSYS


# --- what a daemon does, each in a folder of its own ----------------------------------------------


def files(folder: Path) -> None:
    one = folder / "one"
    one.write_text("1")
    one.chmod(0o640)
    os.chown(one, os.geteuid(), os.getegid())
    os.utime(one)
    fd = os.open(one, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.posix_fallocate(fd, 0, 4096)
    os.ftruncate(fd, 1)
    os.pwrite(fd, b"2", 0)
    os.fdatasync(fd)
    os.fsync(os.dup(fd))
    one.rename(folder / "two")
    (folder / "three/four").mkdir(parents=True)
    assert sorted(os.listdir(folder)) == ["three", "two"]
    assert os.readlink("/proc/self/cwd") and os.path.realpath(folder)
    shutil.rmtree(folder / "three")
    os.unlink(folder / "two")
    assert Path("/proc/self/stat").read_text()


def sockets(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        listener.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(folder / "s"))
            server, _ = listener.accept()
            rights = array.array("i", [0])
            client.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            assert server.recvmsg(1, 100)[1]
            server.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            server.close()
    for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET):
        end.close()
    watch_cpus().close()


def waiting(folder: Path) -> None:
    watch_deletions(str(folder)).close()
    ours, theirs = os.pipe()
    os.write(theirs, b"x")
    for kind in (select.poll, select.epoll):
        waits: Any = kind()
        waits.register(ours, select.POLLIN)
        assert waits.poll(1)
    assert select.select([ours], [], [], 1)[0]
    os.close(os.pidfd_open(os.getpid()))
    os.eventfd(0)


def memory(folder: Path) -> None:
    fd = os.memfd_create("ring", os.MFD_ALLOW_SEALING)
    os.write(fd, bytes(4096))
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_WRITE)
    with mmap.mmap(fd, 4096, prot=mmap.PROT_READ) as mapping:
        assert mapping[:1] == b"\0"
        mapping.madvise(mmap.MADV_DONTNEED)
    with mmap.mmap(-1, 4096) as mapping:
        mapping.resize(8192)


def threads_and_clocks(folder: Path) -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.set)
    thread.start()
    thread.join()
    assert done.wait(1)
    assert time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    received = []
    signal.signal(signal.SIGALRM, lambda *_: received.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    deadline = time.monotonic() + 15
    while not received and time.monotonic() < deadline:
        signal.sigtimedwait([signal.SIGUSR1], 0.01)
    assert received


def processes(folder: Path) -> None:
    code = "import os, ctypes; os._exit(len(os.listdir('/proc/self/fd')) and 7)"
    for _ in range(2):
        pid = os.posix_spawn(sys.executable, [sys.executable, "-I", "-S", "-c", code], os.environ)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert subprocess.run([sys.executable, "-I", "-S", "-c", code], check=False).returncode == 7
    pid = os.fork()
    if not pid:
        os.setsid()
        os._exit(0)
    os.kill(pid, 0)
    os.waitid(os.P_PID, pid, os.WEXITED)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert resource.getrusage(resource.RUSAGE_SELF)
    assert os.uname() and os.getrandom(1) and os.sched_getaffinity(0)


def rights(folder: Path) -> None:
    os.setresgid(*os.getresgid())
    os.setresuid(*os.getresuid())
    if os.geteuid() == 0:
        sandbox._set_capabilities(*[sandbox._bits(sandbox.PERMITTED)] * 2, 0)  # as in an opener
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        assert os.getresuid() == (NOBODY,) * 3
        os.listdir("/proc/self/fd")


def events(folder: Path) -> None:
    try:
        perf_event_open(Attr(type=Type.SOFTWARE, config=Software.CPU_CLOCK), 0, -1).close()
    except PermissionError:
        pass  # kernel.perf_event_paranoid; the call got there


@known_machine
@pytest.mark.parametrize(
    "act",
    [files, sockets, waiting, memory, threads_and_clocks, processes, rights, events],
    ids=lambda act: act.__name__,
)
def test_what_a_daemon_does_works(act: Callable[[Path], None], inside: Inside) -> None:
    with tempfile.TemporaryDirectory(prefix="pk-") as folder:
        assert inside(lambda: act(Path(folder))) is None
