"""`perfkeep doctor`: what this machine lets you record, and how to let you do more."""

from __future__ import annotations

import argparse
import errno
import os
import resource
from collections.abc import Callable, Iterator, Sequence

from perfkeep.cli import doctor_instance
from perfkeep.cli.common import print_json
from perfkeep.cli.finding import Finding, Verdict, read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


# <linux/capability.h>
_CAPABILITIES = {"CAP_IPC_LOCK": 14, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38}


def _status(field: str) -> str:
    for line in read("/proc/self/status").splitlines():
        if line.startswith(field + ":"):
            return line.partition(":")[2].strip()
    return ""


def _with_cure(verdict: Verdict, what: str, error: OSError, otherwise: str = "") -> Finding:
    """A refusal says what is wrong, and behind a semicolon the command that helps."""
    found, _, cure = str(error).partition("; ")
    command = cure.partition(" with: ")[2].removesuffix(" (or run with CAP_PERFMON)")
    return Finding(verdict, what, found, command or cure or otherwise)


def _opening(what: str, pid: int, cpu: int, blocks: bool) -> Finding:
    from perfkeep.abi.perf_event import Attr, Flag, Software, Type
    from perfkeep.kernel import refusal
    from perfkeep.kernel.syscalls import perf_event_open

    flags = Flag.DISABLED | (Flag.EXCLUDE_KERNEL if pid >= 0 else Flag(0))
    attr = Attr(type=Type.SOFTWARE, config=Software.CPU_CLOCK, flags=flags)
    verdict: Verdict = "fail" if blocks else "warn"
    try:
        perf_event_open(attr, pid, cpu).close()
    except OSError as error:
        # The kernel's own answer to who may not is EACCES; EPERM is how filters refuse.
        if error.errno in (errno.EPERM, errno.ENOSYS) and _filtered():
            return Finding(
                verdict, what, "perf_event_open is refused by a seccomp filter", _UNCAGED
            )
        return _with_cure(verdict, what, refusal.of_open(error, "cpu-clock", what))
    return Finding("ok", what, "can be recorded")


def _whole_machine() -> Finding:
    from perfkeep.kernel import cpus

    return _opening("the whole machine", -1, cpus.online()[0], blocks=False)


def _own_processes() -> Finding:
    return _opening("your own processes", 0, -1, blocks=True)


#: Docker's default filter lets perf_event_open through for who has CAP_PERFMON, since 2020.
_UNCAGED = "docker run --cap-add PERFMON --security-opt seccomp=unconfined …"


def _filtered() -> bool:
    return _status("Seccomp") not in ("", "0")


def _seccomp() -> Finding:
    return Finding("ok", "seccomp", "a filter is active" if _filtered() else "no filter")


def _programs() -> Finding:
    """What `perfkeep exec` needs."""
    from perfkeep.interposer.filter import abis

    what = "perfkeep exec"
    try:
        abis(os.uname().machine)
        known = read("/proc/sys/kernel/seccomp/actions_avail").split()
    except OSError as error:
        return _with_cure("warn", what, error, "use the library or the command line instead")
    if "user_notif" not in known:
        return Finding("warn", what, "this kernel has no seccomp user notification",
                       "a kernel from 5.14 on, with CONFIG_SECCOMP_FILTER")  # fmt: skip
    if os.geteuid() and _yama() != "0":
        return Finding("warn", what, f"reaches COMMAND but not what it starts: "
                       f"kernel.yama.ptrace_scope is {_yama()}",
                       "sudo sysctl kernel.yama.ptrace_scope=0")  # fmt: skip
    mounts = "CAP_SYS_ADMIN" in _have() and "overlay" in read("/proc/filesystems").split()
    return Finding("ok", what, f"shows events by {'a mount' if mounts else 'SYSFS_PATH'}")


def exec_works() -> bool:
    """Whether `perfkeep exec` can supervise programs here, as far as can be seen."""
    return _programs().verdict == "ok" and not _filtered()


def _yama() -> str:
    try:
        return read("/proc/sys/kernel/yama/ptrace_scope")
    except FileNotFoundError:
        return "0"  # a kernel without Yama


def _have() -> list[str]:
    effective = int(_status("CapEff"), 16)
    return [name for name, bit in _CAPABILITIES.items() if effective >> bit & 1]


def _capabilities() -> Finding:
    return Finding(
        "ok", "capabilities", ", ".join(_have()) or f"none of {', '.join(_CAPABILITIES)}"
    )


_ALLOWED = {
    0: "the whole machine, but no tracepoints",
    1: "only your own processes",
    2: "only your own processes, and not the kernel's part of them",
}


def _paranoid() -> Finding:
    value = int(read("/proc/sys/kernel/perf_event_paranoid"))
    if value < 0 or {"CAP_PERFMON", "CAP_SYS_ADMIN"} & set(_have()):
        return Finding("ok", "kernel.perf_event_paranoid", f"{value}: no limit for you")
    return Finding(
        "warn",
        "kernel.perf_event_paranoid",
        f"{value}: {_ALLOWED.get(value, 'nothing at all on some distributions')}",
        "sudo sysctl kernel.perf_event_paranoid=-1",
    )


def _addresses() -> Finding:
    """Looked at and not worked out: who sees them depends on three settings."""
    setting = f"kptr_restrict is {read('/proc/sys/kernel/kptr_restrict')}"
    with open("/proc/kallsyms") as file:
        seen = any(int(line.split()[0], 16) for line, _ in zip(file, range(1000), strict=False))
    if seen:
        return Finding("ok", "kernel symbols", f"can be read ({setting})")
    return Finding(
        "warn",
        "kernel symbols",
        f"are hidden from you ({setting}): kernel functions stay numbers",
        "sudo sysctl kernel.kptr_restrict=0 kernel.perf_event_paranoid=-1",
    )


def _rings() -> Finding:
    from perfkeep.client.limits import DEFAULT_RING_BYTES, default_ring
    from perfkeep.kernel import cpus
    from perfkeep.units import format_size

    size = default_ring(len(cpus.online()))
    if size == DEFAULT_RING_BYTES:
        return Finding("ok", "rings", f"{format_size(size)} per CPU and more")
    return Finding(
        "warn",
        "rings",
        f"at most {format_size(size)} per CPU, by kernel.perf_event_mlock_kb",
        f"sudo sysctl kernel.perf_event_mlock_kb={(DEFAULT_RING_BYTES >> 10) + 4}",
    )


def _files() -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard >= 4096:
        return Finding("ok", "open files", f"{hard:,}: one for each event and CPU")
    return Finding("warn", "open files", f"only {hard:,}: one for each event and CPU",
                   "raise the hard limit of RLIMIT_NOFILE, in /etc/security/limits.conf")  # fmt: skip


def _tracefs() -> Finding:
    from perfkeep.kernel import tracefs

    mount = "sudo mount -t tracefs nodev /sys/kernel/tracing"
    try:
        root = tracefs.root()
        os.listdir(root / "events")
    except OSError as error:
        return _with_cure("warn", "tracepoints", error, mount)
    return Finding("ok", "tracepoints", f"in {root}")


def _walk() -> Finding:
    from perfkeep import records

    if records.NATIVE:
        return Finding("ok", "record walk", "native")
    return Finding("warn", "record walk", "pure Python: snapshots take longer",
                   "install a C compiler and Python's headers, then install perfkeep again")  # fmt: skip


def _perf() -> Finding:
    import subprocess

    try:
        said = subprocess.run(["perf", "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return Finding("ok", "stock perf", "not installed; nothing here needs it")
    return Finding("ok", "stock perf", said.stdout.strip() or "there, but it does not run")


def _hardware() -> Finding:
    there = os.path.exists("/sys/bus/event_source/devices/cpu")
    return Finding("ok", "hardware PMU", "there" if there else "none; software events work")


def _lsm() -> Finding:
    """Lockdown and SELinux may refuse what capabilities allow."""
    active = read("/sys/kernel/security/lsm") if os.path.exists("/sys/kernel/security/lsm") else ""
    try:
        lockdown = read("/sys/kernel/security/lockdown")
    except OSError:
        lockdown = ""
    if "[confidentiality]" in lockdown:
        return Finding("fail", "security modules", "lockdown is in confidentiality mode, in which "
                       "nobody may read the kernel by perf events",
                       "boot with lockdown=integrity")  # fmt: skip
    if "selinux" in active:
        return Finding(
            "ok", "security modules", f"{active}; SELinux may refuse by class perf_event"
        )
    return Finding("ok", "security modules", active or "none that can be seen")


def _locked() -> Finding:
    """What rings beyond perf_event_mlock_kb count against."""
    from perfkeep.units import format_size

    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY or "CAP_IPC_LOCK" in _have():
        return Finding("ok", "locked memory", "no limit for you")
    return Finding("ok", "locked memory", f"{format_size(soft)} beyond perf_event_mlock_kb")


def _sandbox() -> Finding:
    """Whether the daemons can give up what they do not need."""
    known = read("/proc/sys/kernel/seccomp/actions_avail").split()
    if "errno" not in known or os.uname().machine not in ("x86_64", "aarch64"):
        return Finding("warn", "sandbox", "the daemons run without a filter of system calls",
                       "a kernel with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64")  # fmt: skip
    return Finding("ok", "sandbox", "the daemons can be confined")


def _kernel() -> Finding:
    return Finding("ok", "kernel", f"{os.uname().release} on {os.uname().machine}")


CHECKS: tuple[Callable[[], Finding], ...] = (
    _kernel,
    _whole_machine,
    _own_processes,
    _paranoid,
    _addresses,
    _capabilities,
    _rings,
    _files,
    _tracefs,
    _hardware,
    _seccomp,
    _lsm,
    _locked,
    _sandbox,
    doctor_instance.state,
    doctor_instance.policy,
    doctor_instance.definitions,
    doctor_instance.boot,
    _programs,
    _walk,
    _perf,
    doctor_instance.running,
)


#: Without these the whole machine cannot be recorded as the demo does.
WHOLE_MACHINE = (_whole_machine, _tracefs)


def examine(checks: Sequence[Callable[[], Finding]] = CHECKS) -> Iterator[Finding]:
    """All findings, in order. One that cannot be had is a warning and stops no other."""
    for check in checks:
        try:
            yield check()
        except (OSError, ValueError) as error:
            yield Finding(
                "warn",
                check.__name__.strip("_"),
                f"cannot be found out: {error}",
                "this is no obstacle by itself",
            )


def run(options: argparse.Namespace) -> int:
    findings = list(examine())
    if options.json:
        print_json([one._asdict() for one in findings])
    else:
        width = max(len(one.what) for one in findings)
        for one in findings:
            print(f"{one.verdict:4}  {one.what:{width}}  {one.found}")
            if one.cure:
                print(f"{'':4}  {'':{width}}  → {one.cure}")
    return 1 if any(one.verdict == "fail" for one in findings) else 0
