"""Every field of every sample is what stock perf says it is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

import perfkeep
from perfkeep.analysis import chains
from perfkeep.analysis.data import Data, read
from perfkeep.analysis.symbolize import Function
from perfkeep.client.look import look
from perfkeep.records.cells import behind
from perfkeep.records.columns import Table
from perfkeep.symbols import elf
from perfkeep.symbols.build_id import of_file
from perfkeep.symbols.elf import debug_file
from perfkeep.testing.requirements import perf_events, perf_tool, requires, tracefs
from support.instance import Running

pytestmark = requires(perf_events, tracefs, perf_tool)

EVENTS = [
    "sched:sched_switch", "sched:sched_wakeup", "sched:sched_process_fork",
    "sched:sched_process_exec", "sched:sched_process_exit", "syscalls:sys_enter_openat",
    "syscalls:sys_exit_openat", "irq:softirq_entry", "timer:hrtimer_start", "kmem:kfree",
    "signal:signal_deliver", "cpu-clock/freq=999/", "page-faults", "context-switches",
]  # fmt: skip

#: perf runs this for each sample, and it prints what perf made of it.
_SCRIPT = """
import json
def plain(value):
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value
def trace_unhandled(name, context, fields, about):
    print("@" + json.dumps([plain(about), plain(fields)]))
def process_event(about):
    print("@" + json.dumps([plain(about), {}]))
"""


def as_perf_says(path: Path, tmp_path: Path) -> dict[str, list[tuple[Any, Any]]]:
    """(about the sample, fields of the tracepoint) by event, in perf's order."""
    script = tmp_path / "fields.py"
    script.write_text(_SCRIPT)
    done = subprocess.run(
        ["perf", "script", "-i", path, "-s", script], capture_output=True, text=True, check=False
    )
    if "Scripting language extension" in done.stderr or "not supported" in done.stderr:
        pytest.skip("this perf was built without Python")
    assert done.returncode == 0, done.stderr
    found: dict[str, list[tuple[Any, Any]]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("@"):
            about, fields = json.loads(line[1:])
            found.setdefault(about["ev_name"], []).append((about, fields))
    return found


def value(table: Table, name: str, row: int) -> Any:
    """As perf's Python gives it."""
    column = table.get(name)
    assert column is not None, name
    if column.form == "int":
        return int(column.values[row])
    assert column.offsets is not None
    part = column.values[column.offsets[row] : column.offsets[row + 1]]
    if column.form == "text":
        return part.tobytes().decode()
    return part.tobytes().hex() if column.form == "bytes" else part.tolist()


def in_order(table: Table) -> list[int]:
    """Rows as perf has them: by time."""
    time = table.get("time")
    assert time is not None
    return [int(row) for row in time.values.argsort(kind="stable")]


def compare(data: Data, theirs: dict[str, list[tuple[Any, Any]]]) -> int:
    """How many fields were compared; each must agree."""
    compared = skipped = 0
    for table in data.tables.values():
        rows, others = in_order(table), theirs.get(table.kind.name, [])
        assert len(rows) == len(others), table.kind.name
        for row, (about, fields) in zip(rows, others, strict=True):
            sample = about["sample"]
            for name in ("pid", "tid", "cpu", "time", "ip", "period"):
                if table.get(name) is not None:
                    # A thread that has exited has pid -1, which perf's Python calls 2^32 - 1.
                    said = sample[name] - (sample[name] >> 31 << 32) * (name in ("pid", "tid"))
                    assert value(table, name, row) == said, (table.kind.name, name)
                    compared += 1
            if table.get("callchain") is not None:
                # The marks between kernel and user space are not among perf's.
                chain = [ip for ip in value(table, "callchain", row) if ip < 2**64 - 4096]
                said = [one["ip"] for one in about["callchain"]]
                # Of a thread that is about to end perf's Python may give none ("Failed to resolve
                # callchain. Skipping"), where its text has the chain.
                skipped += not said and bool(chain)
                assert chain == said or not said, (table.kind.name, row, sample)
                compared += 1
            # What a thread was called that has ended by then perf forgets, and shows its number.
            forgot = re.fullmatch(r":\d+", about["comm"])
            assert forgot or value(table, "comm", row) == about["comm"], (table.kind.name, about)
            for name, said in fields.items():
                if name.startswith("common_") and name != "common_pid":
                    continue  # of perf's own making
                own = f"event_{name}" if table.get(f"event_{name}") is not None else name
                assert value(table, own, row) == said, (table.kind.name, name)
                compared += 1
    assert skipped <= compared / 100
    return compared


@pytest.fixture
def recorded(running: Running, tracefs_mounted: Path, tmp_path: Path) -> Path:
    """A snapshot with samples of every kind."""
    with_chains = perfkeep.start("all", EVENTS, ring="2M", call_chains=True)
    for _ in range(20):
        subprocess.run(["sh", "-c", "ls / > /dev/null; kill -TERM $$"], check=False)
    path = tmp_path / "all.data"
    with_chains.snapshot(str(path)).close()
    with_chains.claim()
    return path


def test_every_field_of_every_sample_is_what_perf_says(recorded: Path, tmp_path: Path) -> None:
    data = read(str(recorded))
    assert (data.malformed, data.unknown, data.unread_bytes) == (0, 0, 0)
    seen = {name for name, table in data.tables.items() if len(table)}
    assert len(seen) >= len(EVENTS) - 3, seen
    assert compare(data, as_perf_says(recorded, tmp_path)) > 10_000


def test_a_file_of_stock_perf_is_read_the_same(tracefs_mounted: Path, tmp_path: Path) -> None:
    path = tmp_path / "perf.data"
    events = ["-e", "sched:sched_switch", "-e", "syscalls:sys_enter_openat", "-e", "cpu-clock"]
    subprocess.run(
        ["perf", "record", "-q", "-a", "-g", *events, "-o", path, "--", "ls", "-lR", "/etc"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    data = read(str(path))
    assert (data.malformed, data.unknown, data.unread_bytes) == (0, 0, 0)
    assert compare(data, as_perf_says(path, tmp_path)) > 1000


def frames_of(data: Data, table: Table) -> list[list[Function]]:
    """Of each sample, the innermost first."""
    frames: list[list[Function]] = []
    for rows in table.batches():
        mappings = data.symbolizer.mappings
        spaces, addresses, counts = chains.frames(mappings, chains.recorded(mappings, rows))
        lengths, codes, functions = data.symbolizer.frames(spaces, addresses)
        bounds = behind(lengths)[behind(counts)].tolist()
        frames += [
            [functions[code] for code in codes[begin:end]] for begin, end in pairwise(bounds)
        ]
    return frames


@cache
def places(file: str) -> dict[str, set[int]]:
    """Where the names of an ELF file, or of the kernel, are: one place may have several."""
    found: dict[str, set[int]] = {}
    if file.startswith("["):
        for line in Path("/proc/kallsyms").read_text().splitlines():
            address, _, name = line.split()[:3]
            found.setdefault(name, set()).add(int(address, 16))
        return found
    build = of_file(file.encode())
    for path in (file, debug_file(build.hex()) if build else ""):
        if os.path.exists(path):
            with open(path, "rb") as opened:
                for name in (".symtab", ".dynsym"):
                    section = ELFFile(opened).get_section_by_name(name)
                    if (
                        isinstance(section, SymbolTableSection)
                        and section["sh_type"] != "SHT_NOBITS"
                    ):
                        for one in section.iter_symbols():
                            found.setdefault(one.name, set()).add(one["st_value"])
    return found


def test_functions_are_called_as_perf_calls_them(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # perf has no frames of inlined functions in its Python; test_lines.py has.
    monkeypatch.setattr(elf, "lines", lambda *_: None)
    data = look(str(recorded))
    theirs = as_perf_says(recorded, tmp_path)
    compared = 0
    for table in data.tables.values():
        frames = frames_of(data, table)
        for row, (about, _) in zip(in_order(table), theirs.get(table.kind.name, []), strict=True):
            ours = [one.name for one in frames[row]]
            chain = about["callchain"]
            for name, frame in zip(ours, chain, strict=True) if chain else ():
                said = frame.get("sym", {}).get("name")
                # perf leaves arguments out of C++ names, and makes names for stubs that have none.
                if said is None or "(" in name or said.endswith("@plt"):
                    continue
                compared += 1
                if name != said:
                    # Of several names of one place each may take another.
                    known = places(frame["dso"])
                    assert known.get(name, set()) & known.get(said, set()), (name, frame)
    assert compared > 1000


def test_functions_of_the_vdso_are_called_as_perf_calls_them(
    tracefs_mounted: Path, tmp_path: Path
) -> None:
    path = tmp_path / "perf.data"
    busy = "import time\nfor _ in range(1_000_000): time.monotonic()"
    # Without build ids: perf 6.1 now and then dies of an assertion when it looks for them.
    record = ["perf", "record", "-q", "-B", "-e", "cpu-clock", "-F", "4000", "-o", str(path)]
    subprocess.run([*record, "--", sys.executable, "-c", busy], check=True)
    script = ["perf", "script", "-i", str(path), "-F", "ip,sym,dso"]
    said = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    theirs = Counter(line.split()[1] for line in said.splitlines() if line.endswith("([vdso])"))
    if not theirs:
        pytest.skip("time.monotonic() does not go through the vdso here")
    data = look(str(path))
    named = [one for frames in frames_of(data, data.table("cpu-clock")) for one in frames]
    assert Counter(one.name for one in named if one.file == "[vdso]") == theirs


@pytest.mark.parametrize("options", [["-z"], ["-o", "-"], ["-z", "-o", "-"]], ids=" ".join)
def test_what_perf_compressed_or_wrote_to_a_pipe_is_read_the_same(
    tracefs_mounted: Path, tmp_path: Path, options: list[str]
) -> None:
    path = tmp_path / "perf.data"
    command = ["perf", "record", "-q", "-a", "-g", "-e", "sched:sched_switch", "-e", "cpu-clock"]
    if "-" in options:
        with open(path, "wb") as out:
            done = subprocess.run([*command, *options, "--", "sleep", "0.5"], stdout=out)
    else:
        work = ["-o", str(path), "--", "ls", "-lR", "/etc"]
        done = subprocess.run([*command, *options, *work], stdout=subprocess.DEVNULL)
    if done.returncode and "-z" in options:
        pytest.skip("this perf was built without zstd")
    data = read(str(path))
    assert (data.malformed, data.unknown, data.unread_bytes) == (0, 0, 0)
    assert compare(data, as_perf_says(path, tmp_path)) > 100
