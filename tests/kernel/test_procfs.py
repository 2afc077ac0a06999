"""What /proc says of this machine, and how it bears processes that come and go."""

from __future__ import annotations

import mmap
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perfkeep.kernel import cpus, procfs
from perfkeep.symbols import build_id
from perfkeep.testing.requirements import requires, root


@contextmanager
def child(program: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python that runs `program` and then waits; it is there when the block begins."""
    program += "\nprint(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", "import sys\n" + program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline()
        yield started
        started.communicate()


def test_the_machine_is_described_as_uname_and_sysfs_have_it() -> None:
    monotonic_ns, realtime_ns = time.monotonic_ns(), time.time_ns()
    host, names = procfs.scan(), os.uname()
    assert monotonic_ns <= host.monotonic_ns <= time.monotonic_ns()
    assert realtime_ns <= host.realtime_ns <= time.time_ns()
    assert (host.hostname, host.release, host.machine) == (
        names.nodename,
        names.release,
        names.machine,
    )
    assert host.cpus_online == len(cpus.online()) <= host.cpus_possible
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert host.memory_kib == pages >> 10
    assert host.cpu_description and host.cpu_id


def test_this_process_is_found_with_its_name_and_threads() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        found = procfs.process(os.getpid())
        assert found is not None
        assert found.threads.keys() >= {os.getpid(), thread.native_id}
        assert found.threads[os.getpid()] == Path("/proc/self/comm").read_bytes().rstrip(b"\n")
    finally:
        stop.set()
        thread.join()


def test_only_executable_mappings_are_told_and_each_leads_to_its_file() -> None:
    found = procfs.process(os.getpid())
    assert found is not None
    programs = [m for m in found.mappings if m.path == os.readlink("/proc/self/exe").encode()]
    assert programs and all(m.protection & mmap.PROT_EXEC for m in found.mappings)
    for one in programs:
        assert one.inode == os.stat("/proc/self/exe").st_ino
        assert one.length > 0 and one.start % mmap.PAGESIZE == one.offset % mmap.PAGESIZE == 0
        assert not one.shared


def test_a_name_full_of_brackets_and_blanks_is_one_name() -> None:
    rename = "open('/proc/self/comm', 'w').write(') R 1 (x')"
    with child(rename) as started:
        found = procfs.process(started.pid)
        assert found is not None and found.threads == {started.pid: b") R 1 (x"}
        assert found.mappings


@pytest.mark.parametrize("name", ["code", "new\nline", "back\\012slash", "x (deleted)"])
def test_a_mapping_has_the_path_that_the_kernel_records(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    program = (
        "import mmap, os\n"
        f"fd = os.open({str(path)!r}, os.O_RDWR | os.O_CREAT, 0o700)\n"
        "os.truncate(fd, 4096)\n"
        "code = mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_EXEC)\n"
        f"os.unlink({str(path)!r})"
    )
    with child(program) as started:
        found = procfs.process(started.pid)
        assert found is not None
        (code,) = [m for m in found.mappings if m.path == bytes(path) + b" (deleted)"]
        assert code.shared and (code.length, code.offset) == (4096, 0)
        assert code.protection == mmap.PROT_READ | mmap.PROT_EXEC


def test_a_process_that_has_gone_is_none() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    assert procfs.process(gone.pid) is None


def test_processes_that_vanish_during_the_scan_are_left_out() -> None:
    # /bin/true comes and goes for as long as we look.
    loop = "import os\nwhile os.getppid() == PARENT: os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)"
    command = [sys.executable, "-c", loop.replace("PARENT", str(os.getpid()))]
    with subprocess.Popen(command) as busy:
        try:
            for _ in range(50):
                pids = [one.pid for one in procfs.scan().processes]
                assert os.getpid() in pids and len(pids) == len(set(pids))
        finally:
            busy.kill()


def test_threads_of_the_kernel_have_a_name_and_no_mappings() -> None:
    found = procfs.process(2)
    if found is None:
        pytest.skip("this process cannot see kernel threads: it is in a PID namespace")
    if found.threads != {2: b"kthreadd"}:
        pytest.skip("pid 2 is no kernel thread: this is a PID namespace")
    assert found.mappings == []


@requires(root)
def test_root_sees_where_the_kernel_is() -> None:
    host = procfs.scan()
    with open("/proc/kallsyms") as file:
        addresses = {words[2]: int(words[0], 16) for words in map(str.split, file)}
    assert host.kernel_text == addresses["_text"]
    assert build_id.in_notes(host.kernel_notes)
    if platform.machine() == "x86_64" and host.kernel_text:
        assert host.kernel_text >= 0xFFFFFFFF80000000
