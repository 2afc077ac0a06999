"""perfkeep.formats.pprof, as go's own pprof reads it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Attr, Software, Type
from perfkeep.formats.pprof import pprof
from perfkeep.formats.protobuf import varint
from perfkeep.formats.sampled import Row, Sampled
from perfkeep.testing.requirements import go, requires

SAMPLED = Sampled(
    "cpu-clock:u",
    [("outer", "/bin/x"), ("inner", "[kernel]"), ("0x3", "")],
    [(0, 1), (0,), (0, 2)],
    [
        Row(10**9, 5, 6, 0, "sh", 0, 250),
        Row(2 * 10**9, 5, 6, 1, "sh", 0, 250),
        Row(3 * 10**9, 5, 5, 0, "sh", 1, 250),
        Row(4 * 10**9, 7, 7, 0, "cat", 2, 250),
    ],
    1_700_000_000 * 10**9,
    Attr(Type.SOFTWARE, Software.CPU_CLOCK),
)


@given(st.integers(-(2**63), 2**64 - 1))
def test_a_varint_is_read_back(value: int) -> None:
    data = varint(value)
    assert len(data) <= 10 and all(one & 0x80 for one in data[:-1]) and not data[-1] & 0x80
    found = sum((one & 0x7F) << 7 * at for at, one in enumerate(data))
    assert found == value % 2**64


def said(tmp_path: Path, *arguments: str) -> str:
    """By `go tool pprof`."""
    path = tmp_path / "x.pb.gz"
    path.write_bytes(pprof(SAMPLED))
    command = ["go", "tool", "pprof", *arguments, str(path)]
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(tmp_path), "TZ": "UTC"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


@requires(go)
def test_pprof_reads_every_sample_with_its_labels(tmp_path: Path) -> None:
    text = said(tmp_path, "-raw")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    # pprof numbers places by itself: "1: 0x0 M=1 inner [kernel]:0 s=0"
    places = lines[lines.index("Locations") + 1 : lines.index("Mappings")]
    names = {place.split(":")[0]: place.split()[-3] for place in places if "M=" in place}
    names |= {place.split(":")[0]: place.split()[2] for place in places if "M=" not in place}
    at = lines.index("samples/count cpu-clock:u/nanoseconds")
    found = []
    for sample, *labels in zip(*(lines[at + one : at + 10 : 3] for one in (1, 2, 3)), strict=True):
        values, _, chain = sample.partition(": ")
        found.append((values, [names[one] for one in chain.split()], *labels))
    assert found == [
        ("2 500", ["inner", "outer"], "comm:[sh]", "pid:[5] tid:[6]"),
        ("1 250", ["outer"], "comm:[sh]", "pid:[5] tid:[5]"),
        ("1 250", ["0x3", "outer"], "comm:[cat]", "pid:[7] tid:[7]"),
    ]
    assert "Time: 2023-11-14 22:13:21" in text and "Duration: 3" in text
    mappings = lines[lines.index("Mappings") + 1 :]
    assert [line.split()[2:] for line in mappings] == [["/bin/x", "[FN]"], ["[kernel]", "[FN]"]]


@requires(go)
def test_pprof_says_what_was_spent_in_each_function(tmp_path: Path) -> None:
    rows = [
        line.split()
        for line in said(tmp_path, "-top", "-sample_index=samples").splitlines()
        if line.endswith(("outer", "inner", "0x3"))
    ]
    assert {row[-1]: (row[0], row[3]) for row in rows} == {
        "outer": ("1", "4"), "inner": ("2", "2"), "0x3": ("1", "1"),
    }  # fmt: skip
    focused = said(tmp_path, "-top", "-sample_index=samples", "-tagfocus=tid=6:6")
    assert "2, 50.00% of 4 total" in focused
