"""Privileges of this process, and commands that give it another one on this machine.

A command is for the user's shell: it names the program that runs things as root here, and none where
the user is root. Nothing in this file runs it.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress

#: <linux/capability.h>
CAPABILITIES = {
    "CAP_IPC_LOCK": 14,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_RESOURCE": 24,
    "CAP_SYSLOG": 34,
    "CAP_PERFMON": 38,
}

#: Command that gives a container what Docker's default filter and capabilities lack.
CONTAINER = "docker run --cap-add PERFMON --security-opt seccomp=unconfined …"

#: The group that may record the whole machine, by the name that the kernel's perf-security.rst gives.
GROUP = "perf_users"
#: A copy of setpriv(1) with CAP_PERFMON, for that group. It passes the capability on.
LAUNCHER = "/usr/local/bin/with-perfmon"

#: Environment that decides which instance and which files perfkeep uses; sudo drops it.
_ENVIRONMENT = (
    "HOME", "PERFKEEP_POLICY", "PERFKEEP_SOCKET", "PERFKEEP_STATE", "PYTHONPATH",
    "XDG_RUNTIME_DIR", "XDG_STATE_HOME",
)  # fmt: skip


def status(field: str) -> str:
    """One field of /proc/self/status; "" on a kernel without it."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(field + ":"):
                return line.partition(":")[2].strip()
    return ""


def _names(field: str) -> frozenset[str]:
    bits = int(status(field) or "0", 16)
    return frozenset(name for name, bit in CAPABILITIES.items() if bits >> bit & 1)


def held() -> frozenset[str]:
    """Effective capabilities, of those that matter here."""
    return _names("CapEff")


def obtainable(capability: str) -> bool:
    """True if root of this machine or container can have the capability, and it would count: perf
    events ask for capabilities in the first user namespace.
    """
    with open("/proc/self/uid_map") as file:
        first = file.read().split() == ["0", "0", str((1 << 32) - 1)]
    return first and capability in _names("CapBnd")


def filtered() -> bool:
    """True if a seccomp filter is active."""
    return status("Seccomp") not in ("", "0")


def as_root(*words: str) -> str:
    """A command line that runs `words` as root."""
    command = shlex.join(words)
    return command if os.geteuid() == 0 else f"{_sudo()} {command}" if _sudo() else _su(command)


def script_as_root(*steps: Sequence[str]) -> str:
    """A command line that runs several commands as root, until one fails."""
    script = " && ".join(map(shlex.join, steps))
    if os.geteuid() == 0:
        return script
    return f"{_sudo()} sh -c {shlex.quote(script)}" if _sudo() else _su(script)


def _sudo() -> str:
    return next(filter(shutil.which, ("sudo", "doas")), "")


def _su(script: str) -> str:
    return f"su -c {shlex.quote(script)}"


def again_with(*capabilities: str) -> str:
    """A command line that runs this process's command once more, as this user with capabilities of
    its own; "" where that cannot be.
    """
    if not all(map(obtainable, capabilities)) or not shutil.which("setpriv"):
        return ""
    names = ",".join("+" + name.removeprefix("CAP_").lower() for name in capabilities)
    passing = [f"--inh-caps={names}", f"--ambient-caps={names}"]
    if capabilities == ("CAP_PERFMON",) and os.access(LAUNCHER, os.X_OK):
        return shlex.join([LAUNCHER, *passing, *this_command()])
    groups = ",".join(map(str, os.getgroups()))
    environment = [f"{name}={os.environ[name]}" for name in _ENVIRONMENT if os.environ.get(name)]
    return as_root(
        "setpriv",
        f"--reuid={os.geteuid()}",
        f"--regid={os.getegid()}",
        f"--groups={groups}" if groups else "--clear-groups",
        *passing,
        *(["env", *environment] if environment else []),
        *this_command(),
    )


def launcher_for_group() -> str:
    """A command line that makes LAUNCHER, for the user's own group or for GROUP with the user in it;
    "" where a program for that is missing.
    """
    # An administrator's directory, which the path of other users need not have.
    setcap = shutil.which("setcap", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    setpriv = shutil.which("setpriv")
    if setcap is None or setpriv is None:
        return ""
    group, steps = str(os.getegid()), list[list[str]]()
    with suppress(KeyError):
        user = pwd.getpwuid(os.geteuid()).pw_name
        if grp.getgrgid(os.getegid()).gr_name != user:  # other users are of it as well
            group = GROUP
            steps = [["groupadd", "-f", group], ["usermod", "-a", "-G", group, user]]
    install = ["install", "-m", "0750", "-g", group, setpriv, LAUNCHER]
    return script_as_root(*steps, install, [setcap, "cap_perfmon=ep", LAUNCHER])


def this_command() -> list[str]:
    """The command that started this process."""
    return [*this_program(), *sys.argv[1:]]


def this_program() -> list[str]:
    """The command that started this process, without its arguments: the script, or
    `python -m perfkeep`.
    """
    script = os.path.abspath(sys.argv[0]) if sys.argv and sys.argv[0] else ""
    if os.path.isfile(script) and os.access(script, os.X_OK):
        return [script]
    return [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv[1:])]]
