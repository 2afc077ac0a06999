"""Another process's memory, fds and rights, of real processes."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.kernel import process
from perfkeep.testing.requirements import perf_events, requires, root

ME = os.getpid()


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits, and has our standard error and a pipe."""
    command = [sys.executable, "-I", "-S", "-c", "print('there', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
        child.kill()


@pytest.fixture(scope="module")
def edge() -> Iterator[tuple[mmap.mmap, int]]:
    """A page behind which nothing is, and where it ends."""
    pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    libc = ctypes.CDLL(None, use_errno=True)
    end = address + mmap.PAGESIZE
    assert libc.mprotect(ctypes.c_void_p(end), mmap.PAGESIZE, 0) == 0
    yield pages, end
    libc.mprotect(ctypes.c_void_p(end), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE)


@given(text=st.binary(max_size=300).filter(lambda text: b"\0" not in text))
def test_a_string_is_read_up_to_its_end_wherever_it_lies(
    edge: tuple[mmap.mmap, int], text: bytes
) -> None:
    pages, end = edge
    start = mmap.PAGESIZE - len(text) - 1
    pages[start : mmap.PAGESIZE] = text + b"\0"
    assert process.read_string(ME, end - len(text) - 1) == text


def test_a_string_that_runs_into_nothing_EFAULT(edge: tuple[mmap.mmap, int]) -> None:
    pages, end = edge
    pages[mmap.PAGESIZE - 8 : mmap.PAGESIZE] = b"x" * 8
    with pytest.raises(OSError) as caught:
        process.read_string(ME, end - 8)
    assert caught.value.errno == errno.EFAULT


def test_a_string_without_an_end_ENAMETOOLONG() -> None:
    buffer = ctypes.create_string_buffer(b"x" * 9000)
    with pytest.raises(OSError) as caught:
        process.read_string(ME, ctypes.addressof(buffer))
    assert caught.value.errno == errno.ENAMETOOLONG


def test_memory_is_read_as_far_as_it_goes(edge: tuple[mmap.mmap, int]) -> None:
    _, end = edge
    assert len(process.read_memory(ME, end - 5, 100)) == 5


def test_memory_is_written_only_where_the_process_could(edge: tuple[mmap.mmap, int]) -> None:
    buffer = ctypes.create_string_buffer(8)
    process.write_memory(ME, ctypes.addressof(buffer), b"written")
    assert buffer.value == b"written"
    with pytest.raises(OSError) as caught:
        process.write_memory(ME, edge[1], b"x")
    assert caught.value.errno == errno.EFAULT


def test_a_fd_of_another_process_is_the_same_open_file(other: subprocess.Popen[bytes]) -> None:
    with process.take_fd(other.pid, 0) as fd:
        theirs = os.stat(f"/proc/{other.pid}/fd/0")
        assert os.fstat(fd.fileno()).st_ino == theirs.st_ino
    with pytest.raises(OSError) as caught:
        process.take_fd(other.pid, 999)
    assert caught.value.errno == errno.EBADF


def test_a_process_that_is_gone_has_nothing() -> None:
    for ask in (process.status, process.process_of):
        with pytest.raises(OSError):
            ask(1 << 22)
    with pytest.raises(ProcessLookupError):
        process.take_fd(1 << 22, 0)
    with pytest.raises(ProcessLookupError):
        process.read_memory(1 << 22, 0, 8)


def test_a_child_has_its_parent_s_rights(other: subprocess.Popen[bytes]) -> None:
    ours = process.rights("self", process.status("self"))
    assert process.rights(other.pid, process.status(other.pid)) == ours
    assert process.process_of(other.pid) == other.pid


@requires(root, perf_events)
@pytest.mark.parametrize("less", ["--reuid=65534", "--bounding-set=-perfmon", "--groups=7"])
def test_who_gave_something_up_has_other_rights(less: str) -> None:
    ours = process.rights("self", process.status("self"))
    command = ["setpriv", less, *(["--keep-groups"] if "groups" not in less else []), "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(b"x")
        child.stdin.flush()
        child.stdout.read(1)  # now it is cat
        assert process.rights(child.pid, process.status(child.pid)) != ours
        child.stdin.close()
