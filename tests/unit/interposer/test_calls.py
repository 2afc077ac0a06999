"""Arguments of system calls, as the kernel takes them."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Attr
from perfkeep.interposer.calls import Caller, OpenCall, ioctl_call, open_call, signed
from perfkeep.kernel.seccomp import Notification

WORD = st.integers(0, 2**64 - 1)


def here() -> Caller:
    """This thread, as if it waited."""
    return Caller(os.getpid(), lambda: True)


def opened(data: bytes, size_in_memory: int = 8192) -> OpenCall:
    buffer = ctypes.create_string_buffer(data, size_in_memory)
    address = ctypes.addressof(buffer)
    return open_call(here(), Notification(1, os.getpid(), 298, 0, (address, 1, 2, 3, 4, 5)))


@given(WORD)
def test_an_int_is_the_low_half_of_its_word(word: int) -> None:
    assert signed(word) == ctypes.c_int32(word & 0xFFFF_FFFF).value


@given(WORD, WORD, WORD)
def test_an_ioctl_s_command_has_32_bits(fd: int, command: int, argument: int) -> None:
    call = ioctl_call(here(), Notification(1, 1, 16, 0, (fd, command, argument, 0, 0, 0)))
    assert call[1:] == (signed(fd), command % 2**32, argument)


@given(st.integers(0, 2**32 - 1), st.binary(min_size=8, max_size=300))
def test_any_bytes_are_an_attr_of_the_size_they_say_or_none(size: int, rest: bytes) -> None:
    data = struct.pack("=II", 1, size) + rest
    try:
        call = opened(data)
    except OSError as error:
        assert not 64 <= (size or 64) <= 4096 and error.errno == errno.E2BIG
    else:
        assert len(call.attr) == (size or 64)
        padded = data.ljust(8192, b"\0")
        assert call.attr[8:] == padded[8 : len(call.attr)]
        assert Attr.unpack(call.attr).type == 1


def test_a_pointer_to_nothing_EFAULT() -> None:
    with pytest.raises(OSError) as caught:
        open_call(here(), Notification(1, os.getpid(), 298, 0, (8, 0, 0, 0, 0, 0)))
    assert caught.value.errno == errno.EFAULT


def test_rights_that_cannot_be_looked_at_are_others() -> None:
    assert not Caller(1 << 30, lambda: True).has_rights(())
