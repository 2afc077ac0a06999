"""tracefs where it is mounted, where it is not, and where it must not be read.

What mounts and unmounts runs in a process with mounts of its own, which nobody else sees.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from perfkeep.kernel import tracefs
from perfkeep.testing.requirements import perf_events, requires, root
from perfkeep.testing.requirements import tracefs as has_tracefs

pytestmark = requires(perf_events, has_tracefs, root)

# Makes the mounts private, takes every tracefs away, then runs `code` and says what it raises.
ALONE = """
import ctypes, errno, os, sys
from perfkeep.errors import PerfkeepError
from perfkeep.kernel import syscalls, tracefs

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_REC, MS_PRIVATE, MS_RDONLY, MS_BIND = 0x20000, 0x4000, 1 << 18, 1, 0x1000
assert libc.unshare(CLONE_NEWNS) == 0
syscalls.mount("none", "/", "", MS_REC | MS_PRIVATE)
for place in reversed(tracefs._mounted()):
    syscalls.umount(place)
try:
    exec(sys.argv[1])
except PerfkeepError as error:
    print(errno.errorcode[error.errno], error, error.hint)
"""


def alone(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ALONE, code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_tracepoint_is_what_its_files_say(tracefs_mounted: Path) -> None:
    point = tracefs.tracepoint("sched", "sched_switch")
    folder = tracefs_mounted / "events/sched/sched_switch"
    assert point.id == int((folder / "id").read_text())
    assert point.format == (folder / "format").read_text()
    assert point in tracefs.tracepoints("sched", "sched_sw*")
    assert {one.system for one in tracefs.tracepoints("sch*", "*")} == {"sched"}


def test_names_are_sorted_and_each_can_be_loaded(tracefs_mounted: Path) -> None:
    assert "sched" in tracefs.systems()
    found = tracefs.names("irq*")
    assert found == sorted(found)
    assert [tracefs.tracepoint(*name)[:2] for name in found] == found
    assert ("sched", "sched_switch") in tracefs.names(name_glob="*_switch")


def test_an_unknown_tracepoint_is_a_missing_file(tracefs_mounted: Path) -> None:
    for system, name in (("sched", "nosuch"), ("nosuch", "x"), ("sched", ".."), ("", "x")):
        with pytest.raises(FileNotFoundError):
            tracefs.tracepoint(system, name)


def test_the_headers_that_perf_data_carries_can_be_read(tracefs_mounted: Path) -> None:
    assert b"field: u64 timestamp" in tracefs.header_page()
    assert tracefs.header_event().startswith(b"# compressed entry header")
    assert tracefs.printk_formats() == (tracefs_mounted / "printk_formats").read_bytes()


def test_tracefs_is_mounted_when_it_is_nowhere_and_stays() -> None:
    said = alone(
        "assert not tracefs._mounted()\n"
        "print(tracefs.root(), tracefs._mounted(), tracefs.tracepoint('sched', 'sched_switch').id)"
    )
    place, mounted, number = said.split()
    assert (place, mounted) == ("/sys/kernel/tracing", "['/sys/kernel/tracing']")
    assert int(number) > 0


def test_tracefs_is_found_at_an_unusual_place(tmp_path: Path) -> None:
    said = alone(f"syscalls.mount('x', {str(tmp_path)!r}, 'tracefs'); print(tracefs.root())")
    assert said == str(tmp_path)


def test_who_may_not_mount_tracefs_is_told_the_command() -> None:
    said = alone("os.setresuid(65534, 65534, 65534); tracefs.root()")
    assert said.startswith("EPERM ")
    assert "mount -t tracefs nodev /sys/kernel/tracing" in said


def test_who_may_not_read_tracefs_is_told_the_command(tmp_path: Path) -> None:
    # Whoever may pass the folder itself may still not read the files in it: both are looked at.
    for setup in ("", "os.chmod('/sys/kernel/tracing', 0o755)"):
        said = alone_unprivileged(setup)
        assert said.startswith("EACCES ")
        assert "mount -o remount,gid=65534,mode=750 /sys/kernel/tracing" in said


def alone_unprivileged(setup: str) -> str:
    """A bind-mounted folder stands for tracefs: modes of the real one are everybody's."""
    return alone(
        "import tempfile\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    point = folder + '/events/sched/sched_switch'\n"
        "    os.makedirs(point)\n"
        "    open(point + '/id', 'w').close()\n"
        "    os.chmod(point + '/id', 0o440)\n"
        "    syscalls.mount(folder, '/sys/kernel/tracing', 'none', MS_BIND)\n"
        f"    {setup or 'pass'}\n"
        "    os.setresgid(65534, 65534, 65534)\n"
        "    os.setresuid(65534, 65534, 0)\n"
        "    try:\n"
        "        tracefs.tracepoint('sched', 'sched_switch')\n"
        "    finally:\n"
        "        os.seteuid(0)\n"
        "        syscalls.umount('/sys/kernel/tracing')\n"
    )
