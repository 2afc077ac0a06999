"""perfkeep.records.tracepoint: what format files say, and what else may be in them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkeep.records.tracepoint import Field, fields


@pytest.mark.parametrize(
    ("declared", "size", "signed", "expected"),
    [
        ("unsigned short common_type", 2, 0, ("int", "here", 2)),
        ("pid_t prev_pid", 4, 1, ("int", "here", 4)),
        ("const void * ptr", 8, 0, ("int", "here", 8)),
        ("bool success", 1, 0, ("int", "here", 1)),
        ("char comm[16]", 16, 0, ("text", "here", 1)),
        ("char prev_comm[TASK_COMM_LEN]", 16, 0, ("text", "here", 1)),
        ("unsigned long args[6]", 48, 0, ("ints", "here", 8)),
        ("u8 mac[6]", 6, 0, ("ints", "here", 1)),
        ("__data_loc char[] filename", 4, 0, ("text", "data_loc", 1)),
        ("__rel_loc char[] name", 4, 0, ("text", "rel_loc", 1)),
        ("__data_loc u32[] list", 4, 0, ("ints", "data_loc", 4)),
        ("__data_loc unsigned long[] mask", 4, 0, ("ints", "data_loc", 8)),
        ("__data_loc struct x[] some", 4, 0, ("bytes", "data_loc", 1)),
        ("struct timespec64 when", 16, 0, ("bytes", "here", 1)),
        ("const char * name", 8, 0, ("int", "here", 8)),
    ],
)
def test_a_declaration_says_how_the_bytes_are_to_be_read(
    declared: str, size: int, signed: int, expected: tuple[str, str, int]
) -> None:
    (one,) = fields(f"\tfield:{declared};\toffset:8;\tsize:{size};\tsigned:{signed};\n")
    assert (one.form, one.place, one.width) == expected
    assert (one.offset, one.size) == (8, size)


def test_fields_come_in_order_and_each_name_once() -> None:
    text = "".join(
        f"\tfield:int {name};\toffset:{at};\tsize:4;\tsigned:1;\n"
        for at, name in ((0, "b"), (4, "a"), (8, "b"))
    )
    assert fields(text) == (
        Field("b", "int", "here", 0, 4, 4, True), Field("a", "int", "here", 4, 4, 4, True),
    )  # fmt: skip


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    for one in fields(f"field:{text};\toffset:0;\tsize:4;\tsigned:0;"):
        assert one.width in (1, 2, 4, 8)


@pytest.mark.parametrize(
    "format",
    ["field:" * 20_000, "field:" + " " * 250 + ";\toffset:0;\tsize:4;\tsigned:0;\n" * 300,
     ("field:" + "a " * 120 + ";\toffset:0;\tsize:4;\tsigned:0;\n") * 300],
    ids=["no end", "spaces", "words"],
)  # fmt: skip
def test_no_format_takes_long(format: str) -> None:
    before = time.process_time()
    fields(format)
    assert time.process_time() - before < 2
