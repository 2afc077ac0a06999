"""perfkeep.formats.firefox, against the types that the Firefox Profiler publishes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perfkeep.abi.perf_event import Attr, Software, Type
from perfkeep.formats.firefox import firefox
from perfkeep.formats.sampled import Facts, Row, Sampled

SAMPLED = Sampled(
    "cpu-clock",
    [("outer", "/bin/x"), ("inner", "[kernel]"), ("0x3", "")],
    [(0, 1), (0,), (2,)],
    [
        Row(1_000_000, 5, 5, 0, "sh", 0, 1),
        Row(2_500_000, 5, 6, 1, "worker", 1, 1),
        Row(3_000_000, 5, 5, 0, "sh", 0, 1),
        Row(4_000_000, 0, 0, 1, "swapper", 2, 1),
        Row(5_000_000, 0, 0, 0, "swapper", 2, 1),
    ],
    10**18,
    Attr(Type.SOFTWARE, Software.CPU_CLOCK),
)

#: Columns of the tables of a thread: which table their numbers point into; None: into none.
_TABLES: dict[str, dict[str, str | None]] = {
    "samples": {"stack": "stackTable", "time": None},
    "stackTable": {"frame": "frameTable", "prefix": "stackTable"},
    "frameTable": {
        "address": None, "inlineDepth": None, "category": "categories", "subcategory": None,
        "func": "funcTable", "nativeSymbol": "nativeSymbols", "innerWindowID": None, "line": None,
        "column": None,
    },
    "funcTable": {
        "name": "strings", "isJS": None, "relevantForJS": None, "resource": "resourceTable",
        "source": None, "lineNumber": None, "columnNumber": None,
    },
    "resourceTable": {"lib": "libs", "name": "strings", "host": "strings", "type": None},
    "nativeSymbols": {"libIndex": "libs", "address": None, "name": "strings", "functionSize": None},
    "markers": {
        "data": None, "name": "strings", "startTime": None, "endTime": None, "phase": None,
        "category": "categories",
    },
}  # fmt: skip


def check(profile: dict[str, Any]) -> None:
    """Every table has all of its columns, of its length, and what they point at is there."""
    meta = profile["meta"]
    needed = {
        "interval", "startTime", "processType", "product", "stackwalk", "version", "markerSchema",
        "preprocessedProfileVersion", "categories",
    }  # fmt: skip
    assert needed <= meta.keys()
    assert "grey" in [one["color"] for one in meta["categories"]]
    sizes = {
        "categories": len(meta["categories"]),
        "libs": len(profile["libs"]),
        "strings": len(profile["shared"]["stringArray"]),
    }
    assert {"arch", "name", "path", "debugName", "debugPath", "breakpadId", "codeId"} <= {
        *(profile["libs"][0] if profile["libs"] else json.loads(json.dumps(_ANY_LIB)))
    }
    for thread in profile["threads"]:
        assert isinstance(thread["pid"], str)
        for table, columns in _TABLES.items():
            found = thread[table]
            for column, points_at in columns.items():
                values = found[column]
                assert len(values) == found["length"], (table, column)
                size = sizes.get(points_at or "") or thread.get(points_at, {}).get("length")
                for value in values if points_at else ():
                    assert value is None or value == -1 or 0 <= value < size, (table, column)
        # A caller comes before what it called.
        for at, prefix in enumerate(thread["stackTable"]["prefix"]):
            assert prefix is None or prefix < at
        assert thread["samples"]["time"] == sorted(thread["samples"]["time"])


_ANY_LIB = dict.fromkeys(
    ("arch", "name", "path", "debugName", "debugPath", "breakpadId", "codeId"), ""
)


def stacks_of(profile: dict[str, Any], thread: dict[str, Any]) -> list[list[str]]:
    """Names from the outermost, for each sample."""
    strings, nodes = profile["shared"]["stringArray"], thread["stackTable"]
    found = []
    for stack in thread["samples"]["stack"]:
        names: list[str] = []
        while stack is not None:
            function = thread["frameTable"]["func"][nodes["frame"][stack]]
            names.insert(0, strings[thread["funcTable"]["name"][function]])
            stack = nodes["prefix"][stack]
        found.append(names)
    return found


def test_every_thread_has_its_samples_at_their_times() -> None:
    profile = firefox(SAMPLED, Facts("box", "6.18", "x86_64", "a CPU", 2))
    check(profile)
    found = {
        (thread["pid"], thread["tid"]): (
            thread["name"], thread["processName"], thread["isMainThread"],
            list(zip(thread["samples"]["time"], stacks_of(profile, thread), strict=True)),
        )
        for thread in profile["threads"]
    }  # fmt: skip
    assert found == {
        ("5", 5): ("sh", "sh", True, [(0, ["outer", "inner"]), (2, ["outer", "inner"])]),
        ("5", 6): ("worker", "sh", False, [(1.5, ["outer"])]),
        ("0", "CPU 0"): ("swapper CPU 0", "swapper", True, [(4, ["0x3"])]),
        ("0", "CPU 1"): ("swapper CPU 1", "swapper", False, [(3, ["0x3"])]),
    }
    assert [one["path"] for one in profile["libs"]] == ["/bin/x", "[kernel]"]
    assert profile["meta"]["startTime"] == (10**18 + 10**6) / 1e6


rows = st.builds(
    Row, st.integers(0, 10**12), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2), st.text(),
    st.integers(0, 2), st.integers(0, 9),
)  # fmt: skip


@given(st.lists(rows))
def test_whatever_was_sampled_its_tables_fit_together(some: list[Row]) -> None:
    check(firefox(SAMPLED._replace(rows=sorted(some)), Facts()))
