"""`perfkeep doctor`: what this machine lets you record, and how to let you do more."""

from __future__ import annotations

import argparse
import errno
import os
import resource
from collections.abc import Callable, Iterator, Sequence

from perfkeep.cli import doctor_instance
from perfkeep.cli.common import group_name, print_json
from perfkeep.cli.finding import Finding, Verdict, read
from perfkeep.errors import PerfkeepError
from perfkeep.kernel import privileges, refusal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def _refused(verdict: Verdict, what: str, error: OSError, cure: str = "") -> Finding:
    hint = error.hint if isinstance(error, PerfkeepError) else ""
    return Finding(verdict, what, str(error), hint or cure)


def _permissions(level: int) -> tuple[str, ...]:
    """Cures for a lack of CAP_PERFMON, the one that changes least first.

    Args:
        level: of kernel.perf_event_paranoid that would do for every user.
    """
    if not privileges.obtainable("CAP_PERFMON"):
        return (refusal.permission_hint(level),)
    share = [
        *privileges.this_program(),
        "start",
        "NAME",
        "-e",
        "EVENT",
        "--group",
        group_name(os.getegid()),
    ]
    cures = (
        privileges.again_with("CAP_PERFMON")
        if os.access(privileges.LAUNCHER, os.X_OK)
        else privileges.launcher_for_group(),
        privileges.as_root(*share, "--mode", "0640", "--system"),
        privileges.as_root("sysctl", f"kernel.perf_event_paranoid={level}"),
    )
    return tuple(filter(None, cures))


def _opening(what: str, pid: int, cpu: int, blocks: bool) -> Finding:
    from perfkeep.abi.perf_event import Attr, Flag, Software, Type
    from perfkeep.kernel.syscalls import perf_event_open

    flags = Flag.DISABLED | (Flag.EXCLUDE_KERNEL if pid >= 0 else Flag(0))
    attr = Attr(type=Type.SOFTWARE, config=Software.CPU_CLOCK, flags=flags)
    verdict: Verdict = "fail" if blocks else "warn"
    try:
        perf_event_open(attr, pid, cpu).close()
    except OSError as error:
        finding = _refused(verdict, what, refusal.of_open(error, "cpu-clock", what))
        if error.errno != errno.EACCES:
            return finding
        cures = _permissions(0)
        return finding._replace(cure=cures[0], others=cures[1:])
    return Finding("ok", what, "can be recorded")


def _whole_machine() -> Finding:
    from perfkeep.kernel import cpus

    return _opening("the whole machine", -1, cpus.online()[0], blocks=False)


def _own_processes() -> Finding:
    return _opening("your own processes", 0, -1, blocks=True)


def _seccomp() -> Finding:
    return Finding("ok", "seccomp", "a filter is active" if privileges.filtered() else "no filter")


def _programs() -> Finding:
    """What `perfkeep exec` needs."""
    from perfkeep.interposer.filter import abis

    what = "perfkeep exec"
    try:
        abis(os.uname().machine)
        known = read("/proc/sys/kernel/seccomp/actions_avail").split()
    except OSError as error:
        return _refused("warn", what, error, "the library and the other verbs do without it")
    if "user_notif" not in known:
        return Finding("warn", what, "this kernel has no seccomp user notification",
                       "a kernel from 5.14 on, with CONFIG_SECCOMP_FILTER")  # fmt: skip
    if os.geteuid() and _yama() != "0":
        return Finding("warn", what, f"reaches COMMAND but not what it starts: "
                       f"kernel.yama.ptrace_scope is {_yama()}",
                       privileges.again_with("CAP_SYS_PTRACE"))  # fmt: skip
    mounts = "CAP_SYS_ADMIN" in privileges.held() and "overlay" in read("/proc/filesystems").split()
    return Finding("ok", what, f"shows events by {'a mount' if mounts else 'SYSFS_PATH'}")


def exec_works() -> bool:
    """Whether `perfkeep exec` can supervise programs here, as far as can be seen."""
    return _programs().verdict == "ok" and not privileges.filtered()


def _yama() -> str:
    try:
        return read("/proc/sys/kernel/yama/ptrace_scope")
    except FileNotFoundError:
        return "0"  # a kernel without Yama


def _capabilities() -> Finding:
    held = ", ".join(sorted(privileges.held()))
    return Finding("ok", "capabilities", held or f"none of {', '.join(privileges.CAPABILITIES)}")


_ALLOWED = {
    0: "the whole machine, but no tracepoints",
    1: "only your own processes",
    2: "only your own processes, and not the kernel's part of them",
}


def _paranoid() -> Finding:
    value = int(read("/proc/sys/kernel/perf_event_paranoid"))
    if value < 0 or {"CAP_PERFMON", "CAP_SYS_ADMIN"} & privileges.held():
        return Finding("ok", "kernel.perf_event_paranoid", f"{value}: no limit for you")
    allowed = _ALLOWED.get(value, "nothing at all on some distributions")
    cure, *others = _permissions(-1)
    what = "kernel.perf_event_paranoid"
    return Finding("warn", what, f"{value}: {allowed}", cure, tuple(others))


def _addresses() -> Finding:
    """Looked at and not worked out: who sees them depends on two settings and a capability."""
    restrict = read("/proc/sys/kernel/kptr_restrict")
    setting = f"kernel.kptr_restrict is {restrict}"
    with open("/proc/kallsyms") as file:
        seen = any(int(line.split()[0], 16) for line, _ in zip(file, range(1000), strict=False))
    if seen:
        return Finding("ok", "kernel symbols", f"can be read ({setting})")
    paranoid = read("/proc/sys/kernel/perf_event_paranoid")
    if restrict == "0":  # kallsyms_show_value() then asks whether the user may profile the kernel
        setting = f"kernel.perf_event_paranoid is {paranoid}"
    return Finding(
        "warn",
        "kernel symbols",
        f"are hidden from you ({setting}, without CAP_SYSLOG): kernel functions stay numbers",
        privileges.again_with("CAP_SYSLOG") if restrict in ("0", "1") else "",
    )


def _rings() -> Finding:
    from perfkeep.client.limits import DEFAULT_RING_BYTES, default_ring
    from perfkeep.kernel import cpus
    from perfkeep.units import format_size

    size = default_ring(len(cpus.online()))
    if size == DEFAULT_RING_BYTES:
        return Finding("ok", "rings", f"{format_size(size)} per CPU and more")
    enough = DEFAULT_RING_BYTES + (1 << 20)
    if privileges.obtainable("CAP_SYS_RESOURCE"):
        # Of the shell, which what it starts inherits.
        limit = enough * len(cpus.online())
        cure = privileges.as_root("prlimit", f"--pid={os.getppid()}", f"--memlock={limit}:{limit}")
    else:
        cure = privileges.as_root("sysctl", f"kernel.perf_event_mlock_kb={enough >> 10}")
    found = f"{format_size(size)} per CPU, by RLIMIT_MEMLOCK and kernel.perf_event_mlock_kb"
    return Finding("warn", "rings", found, cure)


def _files() -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard >= 4096:
        return Finding("ok", "open files", f"{hard:,}: one for each event and CPU")
    return Finding("warn", "open files", f"only {hard:,}: one for each event and CPU",
                   "raise the hard limit of RLIMIT_NOFILE, in /etc/security/limits.conf")  # fmt: skip


def _tracefs() -> Finding:
    from perfkeep.kernel import tracefs

    try:
        root = tracefs.root()
        os.listdir(root / "events")
    except OSError as error:
        return _refused("warn", "tracepoints", error)
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
    if soft == resource.RLIM_INFINITY or "CAP_IPC_LOCK" in privileges.held():
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
            )


def run(options: argparse.Namespace) -> int:
    findings = list(examine())
    if options.json:
        print_json([one._asdict() for one in findings])
    else:
        width = max(len(one.what) for one in findings)
        for one in findings:
            print(f"{one.verdict:4}  {one.what:{width}}  {one.found}")
            for cure in filter(None, (one.cure, *one.others)):
                print(f"{'':4}  {'':{width}}  {'→' if cure == one.cure else 'or'} {cure}")
    return 1 if any(one.verdict == "fail" for one in findings) else 0
