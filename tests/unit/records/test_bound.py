"""How long a record can be, as readers and the redactor take it."""

from __future__ import annotations

import time

import pytest

from perfkeep.abi.perf_event import Attr, Flag, Sample
from perfkeep.records.bound import longest

FIXED = """
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:char comm[16];	offset:8;	size:16;	signed:0;
"""
DYNAMIC = FIXED + "\tfield:__data_loc char[] name;\toffset:24;\tsize:4;\tsigned:0;\n"


@pytest.mark.parametrize(
    ("attr", "format", "bytes"),
    [
        (Attr(), "", 256),
        (Attr(sample_type=Sample.CALLCHAIN), "", 256 + 8 * 135),
        (Attr(sample_type=Sample.RAW), FIXED, 256 + 24),
        (Attr(sample_type=Sample.RAW), DYNAMIC, 256 + 8192),
        (Attr(sample_type=Sample.RAW), "", 256 + 8192),
        (Attr(sample_type=Sample.STACK_USER), "", 1 << 16),
        (Attr(flags=Flag.MMAP2), "", 4096 + 256),
    ],
)
def test_the_longest_record_is_what_the_kernel_may_write(
    attr: Attr, format: str, bytes: int
) -> None:
    assert longest(attr, format, 135) == bytes


@pytest.mark.parametrize("format", ["offset:1" * 100_000, "offset:1;" + " " * 500_000])
def test_no_format_takes_long(format: str) -> None:
    before = time.process_time()
    longest(Attr(sample_type=Sample.RAW), format, 135)
    assert time.process_time() - before < 2
